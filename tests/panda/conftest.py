"""A program in a directory of its own, and runs of its functions on the embedded site."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from scheduler.core.failures import Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation
from scheduler.core.specs import Function, Resources
from scheduler.runners.base_runner import Attempt, OutputOrder
from scheduler.runners.pandaidds_runner import PanDAiDDSRunner

PATIENCE_S = 60.0
_numbers = itertools.count(1)


@dataclass
class Program:
    """A source directory whose files a test writes and whose main file it imports."""

    directory: Path

    def write(self, name: str, text: str = "") -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def load(self, name: str, text: str | None = None) -> ModuleType:
        """Import a file of the program in this process, as the user's program would have it."""
        path = self.directory / name if text is None else self.write(name, text)
        module_name = f"{path.stem}_{next(_numbers)}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    directory = tmp_path / "program"
    directory.mkdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(directory)
    before = set(sys.modules)
    yield Program(directory)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(directory)):
            del sys.modules[name]


@dataclass
class Bench:
    """A runner and a run directory; runs attempts and waits for them on the runner's bell."""

    runner: PanDAiDDSRunner
    run_directory: Path
    _bell: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.runner.on_wake(self._bell.set)

    def attempt(
        self,
        call: Callable[..., object],
        *,
        label: str | None = None,
        directory: Path | None = None,
        output: OutputOrder | None = None,
        inputs: dict[str, str] | None = None,
        resources: Resources | None = None,
        takes_mapping: bool = False,
        **arguments: object,
    ) -> Attempt:
        number = next(_numbers)
        return Attempt(
            label=label or f"attempt-{number}",
            payload=Function(call, takes_mapping),
            arguments=arguments,
            directory=directory or self.run_directory / "trials" / str(number) / "step" / "None",
            resources=resources or Resources(),
            output=output,
            inputs=inputs or {},
        )

    def submit(self, *attempts: Attempt) -> dict[str, str | Failure]:
        return self.runner.submit(attempts)

    def wait(self, *attempts: Attempt, until: Callable[[Observation], bool] | None = None) -> list[Observation]:
        """The observations, once all satisfy the condition (default: they are terminal)."""
        is_reached = until or (lambda seen: not isinstance(seen, IsQueued | IsRunning))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._bell.clear()
            seen = self.runner.poll({attempt.label: attempt.label for attempt in attempts})
            if all(is_reached(seen[attempt.label]) for attempt in attempts):
                return [seen[attempt.label] for attempt in attempts]
            assert time.monotonic() < deadline, f"still {seen}"
            self._bell.wait(1.0)

    def run(self, *attempts: Attempt) -> list[Observation]:
        answer = self.submit(*attempts)
        refused = {label: each for label, each in answer.items() if isinstance(each, Failure)}
        assert not refused, refused
        return self.wait(*attempts)

    def result(self, attempt: Attempt) -> object:
        (seen,) = self.run(attempt)
        assert isinstance(seen, HasSucceeded), seen
        return seen.result

    def failure(self, attempt: Attempt) -> Failure:
        (seen,) = self.run(attempt)
        assert isinstance(seen, HasFailed), seen
        return seen.failure


@pytest.fixture
def make_bench(program: Program, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a runner for the program; it is closed after the test."""
    benches: list[Bench] = []

    def make(**settings: object) -> Bench:
        config = {"slots": 2, **settings.pop("config", {})}
        runner = PanDAiDDSRunner(**{"source_dir": program.directory, "service": "local", "config": config, **settings})
        benches.append(Bench(runner, tmp_path / "run"))
        return benches[-1]

    yield make
    for bench in benches:
        bench.runner.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
