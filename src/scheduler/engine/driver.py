"""What the engine does with one runner: submit, look, ask again, be patient.

The runner is called in its lane; everything else here runs in the engine's thread. Trouble with the backend is a
warning and a longer pause, never a state of a job.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.plan import JobId
from scheduler.engine.lane import Lane
from scheduler.engine.mailbox import Mailbox
from scheduler.engine.settings import EngineSettings
from scheduler.runners.base_runner import Attempt, BaseRunner

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Flight:
    """One attempt that the backend has, or may have.

    Attributes:
        job: The job it is an attempt of.
        number: The number of the attempt.
        attempt: What was, or will be, submitted.
        native_id: The backend's name; None until it is known.
        silent_since: Since when the backend has not mentioned it; None while it does.
        is_unwanted: Whether it shall be cancelled.
        is_twin: Whether it is a second flight of its attempt, see :mod:`scheduler.engine.speculation`.
    """

    job: JobId
    number: int
    attempt: Attempt
    native_id: str | None = None
    silent_since: float | None = None
    is_unwanted: bool = False
    is_twin: bool = False


class Sink(Protocol):
    """Where the news of flights goes."""

    def took(self, flight: Flight) -> None:
        """The backend took the attempt; its native id is known."""
        ...

    def saw(self, flight: Flight, observation: Observation) -> None:
        """The backend said something about the attempt."""
        ...


class RunnerDriver:
    """Drives one runner.

    Args:
        name: The runner's name in messages.
        runner: The runner.
        lane: Where the runner is called.
        mailbox: The engine's.
        settings: The engine's.
        sink: Takes the news.
    """

    def __init__(
        self, name: str, runner: BaseRunner, lane: Lane, mailbox: Mailbox, settings: EngineSettings, sink: Sink
    ) -> None:
        self.runner = runner
        self._name, self._lane, self._mailbox, self._settings, self._sink = name, lane, mailbox, settings, sink
        self._flights: dict[str, Flight] = {}
        self._unsure: dict[str, Flight] = {}
        self._to_cancel: set[str] = set()
        """Attempts that the backend was asked to stop when it did not answer."""
        self._cancel_pause = 0.0
        self._cancel_at = 0.0
        self._is_polling = self._is_asking = self._is_rung = False
        self._pause = settings.poll_min_s
        self._outage_pause = 0.0
        self._look_at = self._ask_at = 0.0
        runner.on_wake(self._ring)

    def submit(self, flights: Sequence[Flight]) -> None:
        """Hand attempts to the backend."""
        self._flights.update((flight.attempt.label, flight) for flight in flights)
        batch = [flight.attempt for flight in flights]
        self._lane.call(
            lambda: self.runner.submit(batch),
            lambda answer: self._submitted(batch, answer),
            lambda error: self._not_submitted(batch, error),
        )

    def adopt(self, flights: Sequence[Flight]) -> None:
        """Ask the backend whether it has these attempts, and submit those it does not know, except twins."""
        for flight in flights:
            self._flights[flight.attempt.label] = self._unsure[flight.attempt.label] = flight
        self._ask_at = self._mailbox.monotonic()

    def cancel(self, labels: Iterable[str]) -> None:
        """Ask the backend to stop attempts, until it has been told. What it says later is the confirmation."""
        flights = [flight for label in labels if (flight := self._flights.get(label)) is not None]
        for flight in flights:
            flight.is_unwanted = True
        known = {flight.attempt.label: flight.native_id for flight in flights if flight.native_id is not None}
        if known:
            self._lane.call(
                lambda: self.runner.cancel(known),
                lambda _: self._cancellation_taken(),
                lambda error: self._not_cancelled(known, error),
            )

    def forget(self, label: str) -> None:
        """Take no more interest in an attempt."""
        self._flights.pop(label, None)
        self._unsure.pop(label, None)

    @property
    def labels(self) -> list[str]:
        """The attempts the backend has, or may have."""
        return list(self._flights)

    @property
    def flights(self) -> list[Flight]:
        """The same, with what is known about them."""
        return list(self._flights.values())

    def is_flying(self, label: str) -> bool:
        """Whether the backend has this attempt, or may have it."""
        return label in self._flights

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do, on the mailbox's monotonic clock."""
        deadlines = []
        if self._unsure and not self._is_asking:
            deadlines.append(self._ask_at)
        if self._confirmed() and not self._is_polling:
            deadlines.append(self._look_at)
        if self._to_cancel:
            deadlines.append(self._cancel_at)
        return min(deadlines, default=None)

    def tick(self) -> None:
        """Do what is due."""
        now = self._mailbox.monotonic()
        if self._to_cancel and now >= self._cancel_at:
            labels, self._to_cancel = self._to_cancel, set()
            self.cancel(sorted(labels))
        if self._unsure and not self._is_asking and now >= self._ask_at:
            self._ask()
        if not self._is_polling and (self._is_rung or now >= self._look_at) and self._confirmed():
            self._look()

    def _confirmed(self) -> bool:
        return len(self._flights) > len(self._unsure)

    def _ring(self) -> None:
        """The runner's bell, rung in any thread; rings that nobody has heard yet are one."""
        if not self._is_rung:
            self._is_rung = True
            self._mailbox.post(self.tick)

    def _ring_now(self) -> None:
        self._is_rung = True
        self.tick()

    def _cancellation_taken(self) -> None:
        self._cancel_pause = 0.0
        self._ring_now()

    def _not_cancelled(self, labels: Iterable[str], error: Exception) -> None:
        self._trouble(error)
        if getattr(error, "transient", False):
            self._cancel_pause = _longer(self._cancel_pause)
            self._cancel_at = self._mailbox.monotonic() + self._cancel_pause
            self._to_cancel.update(labels)

    # Submission -----------------------------------------------------------------------------------------------------

    def _submitted(self, batch: Sequence[Attempt], answer: Mapping[str, str | Failure]) -> None:
        self._recover()
        for attempt in batch:
            flight = self._flights.get(attempt.label)
            if flight is None:
                continue
            match answer.get(attempt.label):
                case str(native_id):
                    self._take_off(flight, native_id)
                case Failure() as failure:
                    self._land(flight, HasFailed(failure))
                case None:
                    self._doubt([flight])
        self._look_soon()

    def _not_submitted(self, batch: Sequence[Attempt], error: Exception) -> None:
        flights = [self._flights[attempt.label] for attempt in batch if attempt.label in self._flights]
        if getattr(error, "transient", False):
            self._trouble(error)
            self._doubt(flights)
            return
        logger.error("%s refused %d jobs", self._name, len(flights), exc_info=error)
        for flight in flights:
            self._land(flight, HasFailed(Failure(Cause.SUBMISSION, f"{type(error).__name__}: {error}")))

    def _doubt(self, flights: Sequence[Flight]) -> None:
        self._unsure.update((flight.attempt.label, flight) for flight in flights)
        self._ask_at = self._mailbox.monotonic() + max(self._outage_pause, self._settings.poll_min_s)

    def _ask(self) -> None:
        labels = list(self._unsure)
        self._is_asking = True
        self._lane.call(lambda: self.runner.find(labels), lambda found: self._found(labels, found), self._not_found)

    def _found(self, labels: Sequence[str], found: Mapping[str, str]) -> None:
        self._is_asking = False
        self._recover()
        missing = []
        for label in labels:
            flight = self._unsure.pop(label, None)
            if flight is None:
                continue
            if label in found:
                self._take_off(flight, found[label])
            elif flight.is_unwanted or flight.is_twin:
                self._land(flight, WasCancelled())
            elif flight.attempt.follows:
                self._land(
                    flight, HasFailed(Failure(Cause.LOST, f"{self._name} did not take it, and cannot chain it now"))
                )
            else:
                missing.append(flight)
        if missing:
            self.submit(missing)
        self._look_soon()

    def _not_found(self, error: Exception) -> None:
        self._is_asking = False
        self._trouble(error)
        self._ask_at = self._mailbox.monotonic() + self._outage_pause

    def _take_off(self, flight: Flight, native_id: str) -> None:
        flight.native_id = native_id
        self._unsure.pop(flight.attempt.label, None)
        self._sink.took(flight)
        if flight.is_unwanted:
            self.cancel([flight.attempt.label])

    # Looking --------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._is_polling, self._is_rung = True, False
        attempts = {label: flight.native_id for label, flight in self._flights.items() if flight.native_id is not None}
        self._lane.call(
            lambda: self.runner.poll(attempts), lambda seen: self._looked(list(attempts), seen), self._looked_in_vain
        )

    def _looked(self, labels: Sequence[str], seen: Mapping[str, Observation]) -> None:
        self._is_polling = False
        self._recover()
        has_changed = False
        for label in labels:
            flight = self._flights.get(label)
            if flight is None:
                continue
            if label in seen:
                flight.silent_since = None
                has_changed |= self._see(flight, seen[label])
            else:
                self._count_silence(flight)
        self._pause = self._settings.poll_min_s if has_changed else min(self._pause * 1.5, self._settings.poll_max_s)
        self._look_at = self._mailbox.monotonic() + self._pause * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        if self._is_rung:
            self.tick()

    def _looked_in_vain(self, error: Exception) -> None:
        self._is_polling = False
        self._trouble(error)
        for flight in self._flights.values():
            flight.silent_since = None
        self._look_at = self._mailbox.monotonic() + self._outage_pause

    def _see(self, flight: Flight, observation: Observation) -> bool:
        """Pass an observation on; returns whether the attempt is over."""
        match observation:
            case HasSucceeded() | HasFailed() | WasCancelled():
                self._land(flight, observation)
                return True
            case IsQueued() | IsRunning():
                self._sink.saw(flight, observation)
                return False

    def _count_silence(self, flight: Flight) -> None:
        now = self._mailbox.monotonic()
        if flight.silent_since is None:
            flight.silent_since = now
        elif now - flight.silent_since >= self._settings.lost_after_s:
            message = (
                f"{self._name} has not mentioned {flight.native_id} for {now - flight.silent_since:.0f} s; "
                "the attempt counts as lost"
            )
            self._land(flight, HasFailed(Failure(Cause.LOST, message)))

    def _land(self, flight: Flight, observation: Observation) -> None:
        self.forget(flight.attempt.label)
        self._sink.saw(flight, observation)

    def _look_soon(self) -> None:
        self._pause = self._settings.poll_min_s
        self._look_at = min(self._look_at, self._mailbox.monotonic() + self._pause)
        self.tick()

    # Outages --------------------------------------------------------------------------------------------------------

    def _trouble(self, error: Exception) -> None:
        is_new = self._outage_pause == 0
        self._outage_pause = _longer(self._outage_pause)
        level = logging.WARNING if is_new else logging.DEBUG
        logger.log(
            level,
            "%s does not answer (%s: %s); its jobs keep their states, trying again in %.0f s",
            self._name,
            type(error).__name__,
            error,
            self._outage_pause,
            exc_info=None if getattr(error, "transient", False) else error,
        )

    def _recover(self) -> None:
        if self._outage_pause:
            logger.info("%s answers again", self._name)
        self._outage_pause = 0.0


def _longer(pause: float) -> float:
    """The pause after this one while a backend does not answer, in seconds."""
    return min(max(pause * 2, 1.0), 60.0)
