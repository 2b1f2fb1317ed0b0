"""What the contract of runners works on: a runner, attempts for it, and patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from scheduler.core.observations import HasFailed, HasSucceeded, Observation, WasCancelled
from scheduler.core.specs import Function, Resources
from scheduler.runners.base_runner import Attempt, BaseRunner

T = TypeVar("T")

_LOOK_INTERVAL_S = 0.05


class Bench:
    """A runner under test.

    Args:
        runner: The runner; its bell is taken.
        directory: Where the directories of attempts go.
        payload: Gives a function of :mod:`scheduler.testing.payloads` by its name.
        patience_s: How long anything may take before the test fails.
    """

    def __init__(
        self,
        runner: BaseRunner,
        directory: Path,
        *,
        payload: Callable[[str], Callable[..., object]],
        patience_s: float = 30.0,
    ) -> None:
        self.runner = runner
        self.directory = directory
        self.rings = 0
        self._payload = payload
        self._patience_s = patience_s
        self._count = 0
        self._bell = threading.Condition()
        runner.on_wake(self._ring)

    def attempt(
        self, payload: str, *, resources: Resources | None = None, takes_mapping: bool = False, **arguments: object
    ) -> Attempt:
        """An attempt that calls a payload function; its label and directory are its own."""
        self._count += 1
        return Attempt(
            label=f"contract-{id(self):x}-{self._count}",
            payload=Function(self._payload(payload), takes_mapping=takes_mapping),
            arguments=arguments,
            directory=self.directory / "trials" / str(self._count) / "step" / "None",
            resources=resources or Resources(),
        )

    def submit(self, *attempts: Attempt) -> dict[str, str]:
        """Submit attempts that the runner has to accept; label -> native id.

        Raises:
            AssertionError: It refused one, or left one out.
        """
        answer = self.runner.submit(attempts)
        ids = {label: native_id for label, native_id in answer.items() if isinstance(native_id, str)}
        if len(ids) != len(answer):
            raise AssertionError(f"the runner refused an attempt: {answer}")
        missing = {attempt.label for attempt in attempts} - set(ids)
        if missing:
            raise AssertionError(f"the runner says nothing about {missing}")
        return ids

    def run(self, *attempts: Attempt) -> list[Observation]:
        """Submit attempts in one batch and wait for the end of all; their outcomes in order."""
        outcomes = self.wait_for_end(self.submit(*attempts))
        return [outcomes[attempt.label] for attempt in attempts]

    def wait_for_end(self, ids: Mapping[str, str]) -> dict[str, Observation]:
        """Wait until attempts are over; their outcomes."""
        return self.wait_until(
            lambda: self.runner.poll(ids), lambda seen: set(seen) == set(ids) and all(map(is_over, seen.values()))
        )

    def wait_until(self, look: Callable[[], T], is_good: Callable[[T], bool]) -> T:
        """Look whenever the bell rings, and now and then, until what is seen is good; that.

        Raises:
            AssertionError: Patience is at an end.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            rings = self.rings
            seen = look()
            if is_good(seen):
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(f"after {self._patience_s:g} s there is still only {seen!r}")
            with self._bell:
                if self.rings == rings:
                    self._bell.wait(_LOOK_INTERVAL_S)

    def _ring(self) -> None:
        with self._bell:
            self.rings += 1
            self._bell.notify_all()


def is_over(observation: Observation) -> bool:
    """Whether nothing can follow an observation."""
    return isinstance(observation, HasSucceeded | HasFailed | WasCancelled)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than an entry that waits to be reaped."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
