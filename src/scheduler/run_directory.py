"""The directory of a run: the one place that knows its layout.

::

    <run>/
      experiment.db                 everything that happened, and the optimizer's state
      run.json                      program, versions, host, source: how the run came about
      trials/<n>/<step>/<point>/    files of a job: parameters, command, log, result
      datasets/                     the embedded site's datasets
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from scheduler.core.events import Event
from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId, point_text
from scheduler.errors import ConfigurationError
from scheduler.store import Lease, Store

DATABASE = "experiment.db"
RUN_FILE = "run.json"
DATASETS = "datasets"

_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]")
_LONGEST_NAME = 80
_VERSIONS_OF = ("aid2e-scheduler", "ax-platform", "torch", "botorch")


class RunDirectory:
    """A run on disk, open for writing: the caller has the lease from :meth:`hold` on.

    Args:
        path: The directory.
        store: Its database.

    Attributes:
        path: The directory, absolute.
        run_id: Short unique name of the run.
        store: Its database.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path.resolve()
        self.store = store
        self.run_id = str(store.about()["run_id"])
        self._lease: Lease | None = None

    @classmethod
    def create(
        cls,
        experiment: str,
        root: str | Path,
        path: str | Path | None = None,
        about: Mapping[str, object] | None = None,
    ) -> RunDirectory:
        """Make the directory of a new run.

        Args:
            experiment: Name of the experiment, which names the directory.
            root: Where to make it: ``<root>/<experiment>``, or with ``-2``, ``-3`` if that exists.
            path: The directory itself, if the user chose one; it must not have files in it.
            about: What else to keep about the run, made of JSON types.

        Raises:
            ConfigurationError: The chosen directory is not empty, or cannot be made.
        """
        try:
            if path is None:
                chosen = _make_next(Path(root), _safe_name(experiment) or "experiment")
            else:
                chosen = Path(path)
                chosen.mkdir(parents=True, exist_ok=True)
                if any(chosen.iterdir()):
                    raise ConfigurationError(
                        f"run_dir {str(path)!r} is not empty; name a new directory, or set resume to go on with a run"
                    )
            description = {"experiment": experiment, **_describe_program(uuid.uuid4().hex[:8]), **(about or {})}
            (chosen / RUN_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot make a run directory: {error}") from error
        return cls(chosen, Store.create(chosen / DATABASE, description))

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the directory of an earlier run.

        Raises:
            StoreError: It is none, or cannot be read.
        """
        return cls(Path(path), Store.open(Path(path) / DATABASE, to_write=True))

    def hold(self, on_lost: Callable[[], None], on_request: Callable[[Mapping[str, object]], None]) -> None:
        """Take the lease; see :class:`~scheduler.store.Lease`.

        Raises:
            RunLockedError: Another program works on the run.
        """
        self._lease = Lease(self.store.path, on_lost, on_request)

    def close(self) -> None:
        """Give the lease back and close the database. May be called twice."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        self.store.close()

    def attempt_directory(self, job: JobId, attempt: int) -> Path:
        """The directory of an attempt: that of the point for the first, with ``.retry<n>`` for the others."""
        name = _safe_name(point_text(job.point)) + (f".retry{attempt - 1}" if attempt > 1 else "")
        return self.trial_directory(job.trial) / job.step / name

    def trial_directory(self, trial: int) -> Path:
        """The directory of a trial."""
        return self.path / "trials" / str(trial)

    def remove_trial(self, trial: int) -> None:
        """Delete the files of a trial's jobs."""
        shutil.rmtree(self.trial_directory(trial), ignore_errors=True)

    def append(self, event: Event, state: ExperimentState, snapshot: str | None = None) -> None:
        """See :meth:`scheduler.store.Store.append`."""
        self.store.append(event, state, snapshot)

    def commit(self) -> None:
        """See :meth:`scheduler.store.Store.commit`."""
        self.store.commit()


def read_about(path: str | Path) -> dict[str, object]:
    """What is known of the run in a directory.

    Raises:
        StoreError: It is no run directory.
    """
    with closing(Store.open(Path(path) / DATABASE)) as store:
        return store.about()


def find_run(experiment: str, root: str | Path) -> Path | None:
    """The newest run of an experiment below ``root``; None if there is none."""
    name = re.escape(_safe_name(experiment) or "experiment")
    paths = [database.parent for database in Path(root).glob(f"*/{DATABASE}")]
    matches = [(match, path) for path in paths if (match := re.fullmatch(rf"{name}(?:-(\d+))?", path.name))]
    return max(((int(match[1] or 1), path) for match, path in matches), default=(0, None))[1]


def _make_next(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = root / (name if number == 1 else f"{name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate


def _safe_name(text: str) -> str:
    """The text as a file name; what had to be changed or cut is told apart by a digest."""
    safe = _UNSAFE.sub("_", text).lstrip(".")
    if safe == text and len(safe) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{safe[: _LONGEST_NAME - 9]}-{digest}"


def _describe_program(run_id: str) -> dict[str, object]:
    return {
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": str(Path(sys.argv[0]).resolve()) if sys.argv and sys.argv[0] else None,
        "arguments": sys.argv[1:],
        "working_directory": str(Path.cwd()),
        "executable": sys.executable,
        "python": sys.version.split()[0],
        "versions": {name: version for name in _VERSIONS_OF if (version := _version(name))},
        "host": platform.node(),
        "user_id": os.getuid(),
        "git": _describe_git(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _describe_git() -> dict[str, object] | None:
    """The commit of the working directory and whether it was changed; None outside a repository or without git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode != 0:
        return None
    return {"commit": commit.stdout.strip(), "is_dirty": bool(status.stdout.strip())}
