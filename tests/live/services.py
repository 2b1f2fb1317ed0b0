"""Servers as processes: started, waited for, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_KEEPER = Path(__file__).parent / "servers" / "keeper.py"
_PATIENCE_S = 90.0
_LOG_LINES = 40


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as reply:  # noqa: S310  # http on this machine
            return bool(reply.status == 200)
    except OSError:
        return False


@dataclass
class Service:
    """A server that can be started and stopped again and again.

    Attributes:
        name: For messages and the name of its log.
        command: What runs.
        directory: Where it runs and where its log is.
        is_ready: Whether it serves.
        environment: Its whole environment.
    """

    name: str
    command: Sequence[str | Path]
    directory: Path
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process that keeps it."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            RuntimeError: It ended, or does not serve in time; the message has the end of its log.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it; :meth:`wait` must follow."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_KEEPER), *map(str, self.command)],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: It ended, or does not serve in time; the message has the end of its log.
        """
        assert self._process is not None, f"{self.name} was not started"
        deadline = time.monotonic() + _PATIENCE_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} does not serve; the end of {self.log}:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and everything it started."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def log_tail(self) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
