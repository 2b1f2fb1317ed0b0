"""The mode in which ``scheduler reanalyse`` runs a program: a new run that begins with the trials of an earlier one.

The command names a file with its order in an environment variable; the scheduler in the program asks :func:`current`
and writes down beside it which run it made.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "SCHEDULER_REANALYSE"
"""Environment variable with the file of the order."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command was asked for.

    Attributes:
        run: The run to re-analyse.
        steps: The changed steps.
        run_dir: The directory of the new run; None for a new one beside the others.
    """

    run: str
    steps: tuple[str, ...]
    run_dir: str | None = None

    def write(self, file: Path) -> None:
        """Leave the order for the program."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")


def current() -> Order | None:
    """The order that this process works for; None in ordinary life."""
    file = os.environ.get(VARIABLE)
    if not file:
        return None
    content = json.loads(Path(file).read_text(encoding="utf-8"))
    return Order(content["run"], tuple(content["steps"]), content["run_dir"])


def note_run(path: Path) -> None:
    """Tell the command which run was made."""
    _answer(Path(os.environ[VARIABLE])).write_text(str(path), encoding="utf-8")


def made_run(file: Path) -> Path | None:
    """The run that was made for an order; None if none was."""
    answer = _answer(file)
    return Path(answer.read_text(encoding="utf-8")) if answer.exists() else None


def _answer(file: Path) -> Path:
    return file.with_suffix(".answer")
