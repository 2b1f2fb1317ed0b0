"""One grid for all tests that only use it; sessions of the existing client library on it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live.broker import why_no_broker
from tests.live.grid import Grid, Setup

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 150.0


class ClientSession:
    """The existing client library in a process of its own: one workflow, and works on it.

    Args:
        grid: Where it works.
        log: Where the libraries' output goes.
        service: ``"panda"`` or ``"idds"``.
    """

    def __init__(self, grid: Grid, log: Path, service: str) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [grid.python, "client.py"],
            cwd=PROGRAMS,  # the library packs what it finds in the working directory
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(log.parent),
                "PYTHONDONTWRITEBYTECODE": "1",
                "AYNC_RESULT_POLL_PERIOD": "1",
                **grid.environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.request_id = self.ask("open", service=service)

    def ask(self, what: str, **arguments: object) -> Any:
        """Give an order to ``client.py`` and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the client ended: {Path(self._log.name).read_text()[-4000:]}"
        return json.loads(answer)

    def submit(self, function: str, *, options: dict[str, object] | None = None, **arguments: object) -> int:
        """Submit a work; its transform id."""
        return int(self.ask("submit", function=function, arguments=arguments, options=options or {}))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "long: runs with `make live` only, where the other tests have shown the essentials"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("LIVE") == "all":
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason=f"long, `make live` runs it: {item.name}"))


@pytest.fixture(scope="session")
def http_grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A grid without a broker."""
    with Grid(tmp_path_factory.mktemp("http-grid")) as running:
        yield running


@pytest.fixture(scope="session")
def broker_grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A grid with a broker; skipped, with the reason, where there is none."""
    missing = why_no_broker()
    if missing:
        pytest.skip(f"not run: {missing}")
    with Grid(tmp_path_factory.mktemp("broker-grid"), Setup(has_broker=True)) as running:
        yield running


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[Callable[..., ClientSession]]:
    """Opens sessions of the existing client library; they are closed after the test."""
    opened: list[ClientSession] = []

    def open_one(grid: Grid, service: str = "panda") -> ClientSession:
        opened.append(ClientSession(grid, tmp_path / f"client-{len(opened)}.log", service))
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture
def task_of() -> Callable[..., dict[str, Any]]:
    """Waits for the task of a work, or for a status of it."""

    def wait(grid: Grid, session: ClientSession, transform_id: int, *statuses: str) -> dict[str, Any]:
        ending = f"_{session.request_id}_{transform_id}"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [task for task in grid.tasks() if task["parameters"]["taskName"].endswith(ending)]
            if found and (not statuses or found[0]["status"] in statuses):
                return found[0]
            assert time.monotonic() < deadline, f"waited for {statuses or 'the task'}, got {found}"
            time.sleep(0.1)

    return wait
