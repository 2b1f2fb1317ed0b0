"""The mode in which ``scheduler rehearse`` runs a program: one trial, on the embedded site, as bare as a node.

The command names a directory in an environment variable; whoever behaves differently in a rehearsal asks
:func:`current`, and writes down what the command shall judge with :meth:`Rehearsal.note`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import scheduler.observer

VARIABLE = "SCHEDULER_REHEARSAL"
"""Environment variable with the directory of the rehearsal that this process belongs to."""

_OBSERVER_FILE = Path(scheduler.observer.__file__).resolve()
_ALLOWED_VARIABLES = ("PATH", "LANG")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal that goes on.

    Attributes:
        directory: Where everything of it goes.
    """

    directory: Path

    @property
    def notes(self) -> Path:
        """The file of the notes, one JSON object per line."""
        return self.directory / "notes.jsonl"

    @property
    def home(self) -> Path:
        """The empty home directory of the jobs."""
        return self.directory / "home"

    @property
    def run(self) -> Path:
        """The run directory of the one trial."""
        return self.directory / "run"

    def prepare(self) -> None:
        """Make what a program finds when it is rehearsed, in the directory, which exists and is empty."""
        self.home.mkdir()
        self.notes.touch()
        # Marked as a run directory, it never ships, though it may lie in the source directory.
        (self.directory / "run.json").write_text(json.dumps({"run_id": "rehearsal"}), encoding="utf-8")

    def note(self, kind: str, **facts: object) -> None:
        """Write something down, made of JSON types."""
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"note": kind, **facts}) + "\n")

    def bare_environment(self) -> dict[str, str]:
        """What a job finds before ``init_env``: PATH, LANG, an empty home directory, and this package."""
        environment = {name: os.environ[name] for name in _ALLOWED_VARIABLES if name in os.environ}
        # A program imports the scheduler at its top, so every environment of jobs has it, wherever ours comes from.
        package = str(_OBSERVER_FILE.parents[1])
        return {**environment, "HOME": str(self.home), "PYTHONPATH": package, "PYTHONNOUSERSITE": "1"}

    def observed(self, worker: Path, *, source: Path, station: Path) -> list[str]:
        """The arguments of the python that runs a worker under observation.

        Args:
            worker: The worker's file.
            source: The directory whose files were shipped.
            station: The directory that the worker's files are unpacked in.
        """
        settings = {
            "notes": str(self.notes),
            "own": [str(station.parent), str(self.directory)],
            "here": [str(source), str(Path.cwd())],
            "home": str(self.home),
            "real_home": str(Path.home()),
            "variables": sorted(os.environ.keys() - {*_ALLOWED_VARIABLES, "HOME", VARIABLE}),
        }
        file = station / "observer.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        return [str(_OBSERVER_FILE), str(file), str(worker)]


class RehearsalEnded(SystemExit):
    """The one trial of a rehearsal is over."""


def current() -> Rehearsal | None:
    """The rehearsal that this process belongs to; None in ordinary life."""
    directory = os.environ.get(VARIABLE)
    return Rehearsal(Path(directory)) if directory else None


def end_after_trial() -> None:
    """Leave the program if it is being rehearsed: it has shown what it had to show.

    Raises:
        RehearsalEnded: It is.
    """
    rehearsal = current()
    if rehearsal is not None:
        rehearsal.note("ended")
        raise RehearsalEnded(0)
