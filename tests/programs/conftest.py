"""Programs run as a user runs them: `python name.py` in a directory of their own."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TIME_LIMIT_S = 170
MARK = "SCHEDULER_TEST_PROGRAM"


@dataclass
class Program:
    """A program in a directory of its own, recognizable by a mark in the environment of all its processes."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def directory(self) -> Path:
        return self.path.parent

    def start(self) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PANDA")}
        environment.setdefault(
            "OMP_NUM_THREADS", "1"
        )  # threads that wait for each other on busy cores take 3 x as long
        return subprocess.Popen(
            [sys.executable, self.path.name],
            cwd=self.directory,
            env={**environment, MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        with self.start() as process:
            try:
                out, err = process.communicate(timeout=TIME_LIMIT_S)
            finally:
                self.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """The live processes that the program started, itself included."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def kill(self) -> None:
        """End what is left of the program."""
        for process in self.processes():
            process.send_signal(signal.SIGKILL)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False

    @property
    def run_directory(self) -> Path:
        """The one run directory that the program made."""
        (found,) = (path.parent for path in (self.directory / "scheduler_runs").glob("*/trials"))
        return found


class Programs:
    """Makes programs under a directory and ends what is left of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Program] = []

    def example(self, name: str) -> Program:
        """A program of `examples/`, beside its siblings as in a clone."""
        shutil.copytree(EXAMPLES, self._directory / "examples", ignore=shutil.ignore_patterns("scheduler_runs", "__*"))
        return self._remember(Program(self._directory / "examples" / name))

    def write(self, text: str, name: str = "program.py") -> Program:
        """A program of this text."""
        path = self._directory / name
        path.write_text(text)
        return self._remember(Program(path))

    def _remember(self, program: Program) -> Program:
        self._made.append(program)
        return program

    def close(self) -> None:
        for program in self._made:
            program.kill()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    yield made
    made.close()


@pytest.fixture
def printed_value():
    """Reads what a program printed after a title: ``Best parameters: {...}``."""

    def read(out: str, title: str) -> object:
        lines = [line for line in out.splitlines() if line.startswith(title)]
        assert len(lines) == 1, f"{title!r} should be printed once:\n{out}"
        return ast.literal_eval(lines[0].removeprefix(title).strip())

    return read


@pytest.fixture
def wait_until():
    """Waits for a condition, with a deadline."""

    def wait(condition, within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
            time.sleep(0.05)

    return wait
