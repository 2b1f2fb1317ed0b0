"""How pilot processes are started: with an interpreter of their own, or forked from this program."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, Protocol

import scheduler.worker

WORKER_FILE = Path(scheduler.worker.__file__).resolve()
"""The single file that runs on the worker's side, under any Python from 3.7 on."""


def worker_command(python: str = sys.executable) -> tuple[str, ...]:
    """The command line of a pilot process, for example for ``exec`` at the end of a bash script."""
    return (python, str(WORKER_FILE), "pilot")


_one_at_a_time = threading.Lock()
"""Held while a process is started: a fork made meanwhile would keep the other's ends of its pipes open for ever."""


class PilotProcess(Protocol):
    """A running pilot process; ``subprocess.Popen`` is one."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    pid: int

    def wait(self) -> int:
        """Wait for its end; the exit code, or minus the signal."""


class Launcher(Protocol):
    """A way to start a pilot process."""

    @property
    def log(self) -> Path:
        """The file with what the process says before and between jobs."""

    def start(self) -> PilotProcess:
        """Start one.

        Raises:
            OSError: It cannot be started.
        """


@dataclass(frozen=True, slots=True)
class Launch:
    """A pilot process with an interpreter of its own.

    Lines on its stdout before the worker speaks go to the log, so a script may print; what a script reads from stdin
    is lost to the worker, so give its commands ``</dev/null``.

    Attributes:
        command: Its command line; it must end up in :func:`worker_command` with the stdin and stdout it was given.
        directory: Its working directory, which exists.
        log: File that its stderr is appended to (start of the interpreter, imports).
        environment: Its whole environment; None passes the driver's on.
    """

    command: Sequence[str]
    directory: Path
    log: Path
    environment: Mapping[str, str] | None = None

    def start(self) -> PilotProcess:
        """Start it in a session of its own, so that Ctrl-C reaches only the driver."""
        environment = dict(os.environ if self.environment is None else self.environment)
        environment.setdefault(scheduler.worker.START_DIRECTORY_VARIABLE, str(Path.cwd()))
        with self.log.open("ab") as log, _one_at_a_time:
            return subprocess.Popen(
                list(self.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
            )


@dataclass(frozen=True, slots=True)
class Fork:
    """A pilot process forked from this program, with everything that the program has in memory.

    Only the thread that forks lives on in it: what other threads were doing stays undone, and a lock that one of them
    held stays locked.

    Attributes:
        functions: What it can run, by name.
        log: File that its stdout and stderr are appended to.
    """

    functions: Mapping[str, Callable[..., object]]
    log: Path

    def start(self) -> PilotProcess:
        """Fork."""
        with _one_at_a_time:
            orders, give_orders = os.pipe()
            take_reports, reports = os.pipe()
            pid = os.fork()
            if pid == 0:
                _one_at_a_time.release()
                os.close(give_orders)
                os.close(take_reports)
                self._be_pilot(orders, reports)
            os.close(orders)
            os.close(reports)
        return _Forked(pid, os.fdopen(give_orders, "wb"), os.fdopen(take_reports, "rb"))

    def _be_pilot(self, orders: int, reports: int) -> NoReturn:
        try:
            os.setsid()
            os.environ.setdefault(scheduler.worker.START_DIRECTORY_VARIABLE, str(Path.cwd()))
            _redirect_output(self.log)
            faulthandler.enable()
            scheduler.worker.Pilot(orders, reports, dict(self.functions)).serve()
        except BaseException:  # noqa: BLE001 - nothing may return into the program that was copied
            traceback.print_exc()
        finally:
            os._exit(0)


def _redirect_output(log: Path) -> None:
    """Leave the streams of the program alone: what they hold unwritten is the program's to write."""
    with log.open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - streams for the life of the process
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


@dataclass(slots=True)
class _Forked:
    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self) -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # the program ignores SIGCHLD or reaps by itself: how it ended is not known
            return 0
