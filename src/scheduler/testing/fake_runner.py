"""A backend in memory: instant, honest, and as nasty as a test wants it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.specs import Function
from scheduler.runners.base_runner import Attempt, BaseRunner, JobEnvironment

Outcome = HasSucceeded | HasFailed | WasCancelled | None


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an attempt.

    Attributes:
        outcome: What is observed at the end; None for a job that the backend never mentions again.
        queued_s: Seconds in the queue.
        running_s: Seconds of running.
    """

    outcome: Outcome
    queued_s: float = 0.0
    running_s: float = 0.0


def call_it(attempt: Attempt) -> Fate:
    """The fate of an honest attempt: its function is called here and now."""
    assert isinstance(attempt.payload, Function)  # noqa: S101 - the fake runs functions only
    arguments = dict(attempt.arguments)
    try:
        value = attempt.payload.call(arguments) if attempt.payload.takes_mapping else attempt.payload.call(**arguments)
    except Exception as error:  # noqa: BLE001 - user code, whose failure is the observation
        return Fate(HasFailed(Failure(Cause.EXCEPTION, f"{type(error).__name__}: {error}")))
    return Fate(HasSucceeded(value))


@dataclass(slots=True)
class _Entry:
    fate: Fate
    begins_at: float
    parent: _Entry | None = None
    is_cancelled: bool = False

    @property
    def ends_at(self) -> float:
        return self.begins_at + self.fate.queued_s + self.fate.running_s


class FakeRunner(BaseRunner):
    """A backend that decides the fate of an attempt when it is submitted.

    Args:
        fate: Decides it; the default calls the function.
        capacity: See :class:`~scheduler.runners.base_runner.BaseRunner`.
        clock: Gives the time in seconds.
        alarm: Arranges for a call at a given time; without it the runner rings at once when a fate takes no time, and
            is found out by polling otherwise.
        chains: Whether it takes attempts that follow others: they begin when those have ended, and break when those
            failed.

    Attributes:
        submitted: Every attempt ever submitted, in order: what a test counts.
        cancelled: The labels it was asked to cancel.
    """

    stages_inputs = True
    stages_outputs = True

    def __init__(
        self,
        fate: Callable[[Attempt], Fate] = call_it,
        *,
        capacity: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        alarm: Callable[[float, Callable[[], None]], None] | None = None,
        chains: bool = False,
    ) -> None:
        self.capacity, self.chains_datasets = capacity, chains
        self.submitted: list[Attempt] = []
        self.cancelled: list[str] = []
        self._fate, self._clock, self._alarm = fate, clock, alarm
        self._entries: dict[str, _Entry] = {}
        self._ids = itertools.count(1)
        self._native: dict[str, str] = {}

    def environment(self) -> JobEnvironment:
        """See :meth:`BaseRunner.environment`."""
        return JobEnvironment("fake", is_ours=True)

    def submit(self, batch: Sequence[Attempt]) -> dict[str, str | Failure]:
        """See :meth:`BaseRunner.submit`."""
        answer: dict[str, str | Failure] = {}
        for attempt in batch:
            assert attempt.label not in self._entries, f"{attempt.label} was submitted twice"  # noqa: S101
            entry = self._entry(attempt)
            self.submitted.append(attempt)
            self._entries[attempt.label] = entry
            answer[attempt.label] = self._native[attempt.label] = f"fake-{next(self._ids)}"
            self._arrange_bell(entry)
        return answer

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """See :meth:`BaseRunner.poll`."""
        seen = {label: self._observe(self._entries[label]) for label in attempts if label in self._entries}
        return {label: observation for label, observation in seen.items() if observation is not None}

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """See :meth:`BaseRunner.cancel`."""
        for label in attempts:
            self.cancelled.append(label)
            entry = self._entries.get(label)
            if entry is not None and not isinstance(self._observe(entry), HasSucceeded | HasFailed):
                entry.is_cancelled = True
        self.wake()

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """See :meth:`BaseRunner.find`."""
        return {label: self._native[label] for label in labels if label in self._entries}

    def _entry(self, attempt: Attempt) -> _Entry:
        now = self._clock()
        if not attempt.follows:
            return _Entry(self._fate(attempt), now)
        label = next(label for label, native_id in self._native.items() if native_id == attempt.follows)
        parent = self._entries[label]
        return _Entry(self._fate(attempt), max(now, parent.ends_at), parent)

    def _arrange_bell(self, entry: _Entry) -> None:
        if self._alarm is not None:
            self._alarm(entry.begins_at + entry.fate.queued_s, self.wake)
            self._alarm(entry.ends_at, self.wake)
        elif self._clock() >= entry.ends_at:
            self.wake()

    def _observe(self, entry: _Entry) -> Observation | None:
        age = self._clock() - entry.begins_at
        if entry.is_cancelled:
            return WasCancelled()
        if age >= 0 and entry.parent is not None and not isinstance(self._observe(entry.parent), HasSucceeded):
            return HasFailed(Failure(Cause.KILLED, "broken: there is no dataset"))
        if age < entry.fate.queued_s:
            return IsQueued()
        if age < entry.fate.queued_s + entry.fate.running_s:
            return IsRunning()
        return entry.fate.outcome
