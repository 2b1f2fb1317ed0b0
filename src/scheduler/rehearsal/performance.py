"""Runs a rehearsal: prepares the stage, lets the program play on it, and has the notes judged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.errors import ConfigurationError
from scheduler.rehearsal.findings import Finding, Severity
from scheduler.rehearsal.judge import judge
from scheduler.rehearsing import VARIABLE, Rehearsal

Play = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a program (its file and arguments, the environment) on a stage of its own and gives its exit code."""

_SERVICE_VARIABLES = ("PANDA_URL", "PANDA_URL_SSL", "SCHEDULER_RESUME")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rehearsal went.

    Attributes:
        findings: What was found, the worst first.
        seconds: How long it took.
        directory: Its files: the run directory of the trial, with the logs, and the notes.
    """

    findings: tuple[Finding, ...]
    seconds: float
    directory: Path

    @property
    def would_fail(self) -> bool:
        """Whether something would fail on the grid."""
        return self.count(Severity.ERROR) > 0

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity is severity for finding in self.findings)


def play_in_subprocess(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program with this interpreter; what it prints goes to stderr."""
    stage = [sys.executable, "-P", "-m", "scheduler.rehearsal.stage", *command]
    return subprocess.run(stage, env=dict(environment), stdout=sys.stderr.fileno(), check=False).returncode


def rehearse(
    program: str | Path,
    arguments: Sequence[str] = (),
    *,
    directory: Path | None = None,
    play: Play = play_in_subprocess,
) -> Outcome:
    """Run one trial of a program on the embedded site, with an empty home directory and a clean environment.

    Args:
        program: The program's file. It runs in the current directory.
        arguments: Its arguments.
        directory: Where the files of the rehearsal go, an empty directory; default: a new temporary one, which the
            caller removes.
        play: How the program is run.

    Raises:
        ConfigurationError: There is no such program.
    """
    path = Path(program)
    if not path.is_file():
        raise ConfigurationError(f"there is no program {str(program)!r}: give the path of a Python file")
    rehearsal = Rehearsal((directory or Path(tempfile.mkdtemp(prefix="scheduler-rehearsal-"))).resolve())
    rehearsal.prepare()
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in _SERVICE_VARIABLES}
    try:
        code = play([str(program), *arguments], {**environment, VARIABLE: str(rehearsal.directory)})
    except BaseException:  # interrupted: nobody will look at the files
        if directory is None:
            shutil.rmtree(rehearsal.directory, ignore_errors=True)
        raise
    return Outcome(tuple(judge(rehearsal, exit_code=code)), time.monotonic() - began, rehearsal.directory)
