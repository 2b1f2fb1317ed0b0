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
class NativeId:
    """Where an attempt is: its work in iDDS, and how many jobs of it make a dataset.

    Written as ``<request>.<transform>``, followed by ``/<slices>`` when a dataset is produced, so that a program that
    starts anew knows without any other record when the attempt is complete.

    Attributes:
        request_id: The request in iDDS.
        transform_id: The work in iDDS.
        slices: Jobs that produce files of a dataset; 0 when there is no dataset.
    """

    request_id: int
    transform_id: int
    slices: int = 0

    def __str__(self) -> str:
        return f"{self.request_id}.{self.transform_id}" + (f"/{self.slices}" if self.slices else "")

    @classmethod
    def parse(cls, text: str) -> NativeId | None:
        """Read what :meth:`__str__` wrote; None when it is something else."""
        found = re.fullmatch(r"(\d+)\.(\d+)(?:/(\d+))?", text)
        return None if found is None else cls(*(int(each or 0) for each in found.groups()))


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


def with_slices(name: str, slices: int) -> str:
    """A work's name that says how many jobs of it make a dataset; a plain one when it makes none."""
    return f"{name}.slices{slices}" if slices else name


def without_slices(name: str) -> tuple[str, int]:
    """The parts that :func:`with_slices` joined."""
    stem, _, slices = name.rpartition(".slices")
    return (stem, int(slices)) if stem and slices.isdigit() else (name, 0)


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
