"""Names on the grid: unique, found again after a restart, and safe in a command line."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120
_DIGEST_LETTERS = 10


@dataclass(frozen=True, slots=True)
class Yield:
    """What makes an attempt complete, besides its function's return.

    In names it is ``slices<n>``, or ``files<n>`` when the dataset alone counts; empty without a dataset.

    Attributes:
        slices: Jobs that produce files of a dataset; 0 when there is no dataset.
        is_silent: Whether nobody waits for what the function returns.
    """

    slices: int = 0
    is_silent: bool = False

    def __str__(self) -> str:
        return f"{'files' if self.is_silent else 'slices'}{self.slices}" if self.slices else ""

    @classmethod
    def parse(cls, text: str) -> Yield | None:
        """Read what :meth:`__str__` wrote; None when it is something else."""
        found = re.fullmatch(r"(slices|files)(\d+)", text)
        return None if found is None else cls(int(found[2]), found[1] == "files")


NOTHING_ELSE = Yield()


@dataclass(frozen=True, slots=True)
class NativeId:
    """Where an attempt is: its work in iDDS, and what makes it complete.

    Written as ``<request>.<transform>``, with ``/<slices>`` when a dataset is produced, or ``/files<slices>`` when
    the dataset alone counts, so that a program that starts anew knows without any other record when it is complete.

    Attributes:
        request_id: The request in iDDS.
        transform_id: The work in iDDS.
        yields: The dataset that it produces.
    """

    request_id: int
    transform_id: int
    yields: Yield = NOTHING_ELSE

    def __str__(self) -> str:
        yields = str(self.yields).removeprefix("slices")
        return f"{self.request_id}.{self.transform_id}" + (f"/{yields}" if yields else "")

    @classmethod
    def parse(cls, text: str) -> NativeId | None:
        """Read what :meth:`__str__` wrote; None when it is something else."""
        found = re.fullmatch(r"(\d+)\.(\d+)(?:/(files)?(\d+))?", text)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), Yield(int(found[4] or 0), is_silent=bool(found[3])))


def work_name(prefix: str | None, label: str) -> str:
    """The name of an attempt's work: the label where possible, else the label and a digest of it.

    It becomes an unquoted word in the command line of the job.
    """
    wanted = f"{prefix}.{label}" if prefix else label
    safe = _UNSAFE.sub("_", wanted)
    if safe == wanted and len(safe) <= _LONGEST:
        return safe
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:_DIGEST_LETTERS]
    return f"{safe[:_LONGEST]}.{digest}"


def with_yield(name: str, yields: Yield) -> str:
    """A work's name that says what makes it complete; a plain one when it makes no dataset."""
    return f"{name}.{yields}" if yields.slices else name


def without_yield(name: str) -> tuple[str, Yield]:
    """The parts that :func:`with_yield` joined."""
    stem, _, last = name.rpartition(".")
    yields = Yield.parse(last)
    return (stem, yields) if stem and yields is not None else (name, NOTHING_ELSE)


def internal_id(name: str) -> str:
    """The name by which other works of the same request refer to a work: always the same for the same name."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def family_of(label: str) -> str:
    """What the labels of one run have in common: the run's id, up to the first ``-``."""
    return label.split("-", 1)[0]


def new_workflow_name(prefix: str | None, family: str) -> str:
    """A name for a new workflow that no other has, also when two programs start in the same second."""
    return f"{_stem(prefix, family)}.{datetime.now(UTC):%Y%m%d%H%M%S}.{uuid.uuid4().hex[:8]}"


def workflow_pattern(prefix: str | None, family: str) -> str:
    """What finds the workflows of a run, with ``*`` for anything."""
    return f"{_stem(prefix, family)}.*"


def new_archive_name() -> str:
    """A name for a tarball in PanDA's cache, where nothing is overwritten.

    With ``sources.`` at the beginning the limit is 768 MB, without it is 10 MB.
    """
    return f"sources.{uuid.uuid4()}.tar.gz"


def _stem(prefix: str | None, family: str) -> str:
    return _UNSAFE.sub("_", f"{prefix}.{family}" if prefix else f"scheduler.{family}")
