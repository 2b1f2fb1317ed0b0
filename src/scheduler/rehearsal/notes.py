"""The notes of a rehearsal, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Note = Mapping[str, Any]
"""One note: ``note`` is its kind, the rest are its facts."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What was written down, in order.

    Attributes:
        all: Every note.
        run: The run directory of the trial.
    """

    all: tuple[Note, ...]
    run: Path

    @classmethod
    def read(cls, file: Path, run: Path) -> Self:
        """Read a file of notes."""
        with file.open(encoding="utf-8") as lines:
            return cls(tuple(json.loads(line) for line in lines), run)

    def of(self, kind: str) -> list[Note]:
        """The notes of a kind, each once, in order."""
        notes: list[Note] = []
        for note in self.all:
            if note["note"] == kind and note not in notes:
                notes.append(note)
        return notes

    def step_of(self, directory: str) -> str | None:
        """The step whose job a directory belongs to; None when it is no job's."""
        trials = self.run / "trials"
        path = Path(directory)
        parts = path.relative_to(trials).parts if path.is_relative_to(trials) else ()
        return parts[1] if len(parts) > 1 else None
