"""The directory of a run: the one place that knows its layout.

::

    <run>/
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
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from scheduler.core.events import Event
from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId, point_text
from scheduler.errors import ConfigurationError

_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]")
_LONGEST_NAME = 80
_VERSIONS_OF = ("aid2e-scheduler", "ax-platform", "torch", "botorch")


class RunDirectory:
    """A run on disk.

    Args:
        path: The directory, which exists and is empty.

    Attributes:
        path: The directory, absolute.
        run_id: Short unique name of the run.
        events: Everything that happened, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.run_id = uuid.uuid4().hex[:8]
        self.events: list[Event] = []
        description = json.dumps(_describe_program(self.run_id), indent=2)
        (self.path / "run.json").write_text(description + "\n", encoding="utf-8")

    @classmethod
    def create(cls, experiment: str, root: str | Path, path: str | Path | None = None) -> RunDirectory:
        """Make the directory of a new run.

        Args:
            experiment: Name of the experiment, which names the directory.
            root: Where to make it: ``<root>/<experiment>``, or with ``-2``, ``-3`` if that exists.
            path: The directory itself, if the user chose one; it must not have files in it.

        Raises:
            ConfigurationError: The chosen directory is not empty, or cannot be made.
        """
        try:
            if path is None:
                return cls(_make_next(Path(root), _safe_name(experiment) or "experiment"))
            chosen = Path(path)
            chosen.mkdir(parents=True, exist_ok=True)
            if any(chosen.iterdir()):
                raise ConfigurationError(f"run_dir {str(path)!r} is not empty; name a new directory")
            return cls(chosen)
        except OSError as error:
            raise ConfigurationError(f"cannot make a run directory: {error}") from error

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

    def append(self, event: Event, state: ExperimentState, snapshot: str | None = None) -> None:  # noqa: ARG002
        """Keep an event."""
        self.events.append(event)


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
