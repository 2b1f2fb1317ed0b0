"""Second attempts of jobs that take much longer than their siblings.

A twin is a second flight of the very attempt that is under way. The run's state knows one attempt only; the twin's
label follows from the attempt's, so that it needs no record to be found again after a crash. Its success is the job's
success. Whatever else becomes of it is nothing: the job fails by the failure of the first, once the twin is over too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from scheduler.core.machine import ExperimentState, JobRecord
from scheduler.core.observations import HasFailed, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.plan import JobId
from scheduler.core.stragglers import stragglers
from scheduler.engine.driver import Flight, RunnerDriver, Sink

logger = logging.getLogger(__name__)

_SUFFIX = ".twin"


def labels_of(record: JobRecord) -> list[str]:
    """The labels under which a backend may have the latest attempt of a job."""
    return [record.label, record.label + _SUFFIX]


def twin_of(flight: Flight) -> Flight:
    """A second flight of the same attempt, in a directory of its own."""
    directory = flight.attempt.directory
    attempt = replace(
        flight.attempt,
        label=flight.attempt.label + _SUFFIX,
        directory=directory.with_name(directory.name + _SUFFIX),
    )
    return replace(flight, attempt=attempt, native_id=None, silent_since=None, is_twin=True)


class Speculation:
    """Starts twins, and says what the news of two flights of one attempt mean for their job.

    Args:
        state: The run.
        drivers: Runner name -> driver.
        sink: Takes the failure of the first flight when the twin is over.
        factor: See :func:`scheduler.core.stragglers.stragglers`.
    """

    def __init__(
        self, state: ExperimentState, drivers: Mapping[str, RunnerDriver], sink: Sink, *, factor: float
    ) -> None:
        self._state, self._drivers, self._sink, self._factor = state, drivers, sink, factor
        self._steps = {step.name for step in state.workflow.steps if step.speculative}
        self._runners = {state.workflow.step(name).runner for name in self._steps}
        self._since = float("-inf")
        self._had_one: dict[str, float | None] = {}
        """The label of an attempt that has, or had, a twin -> the patience with it; None: that is forgotten."""
        self._set_aside: dict[JobId, tuple[Flight, Observation]] = {}
        """How the first flights ended badly whose twins go on."""
        self.next_at: float | None = None
        """When the next job may become slow, seconds since the epoch."""

    def resume(self, now: float, pack: Callable[[JobId], Flight]) -> Iterator[Flight]:
        """Flights to ask the backends for besides those of active jobs: twins, and losers that were not cancelled.

        Jobs that die with the program are not asked for.
        """
        self._since = now
        for trial in self._state.live.values():
            for record in trial.jobs.values():
                step = self._state.workflow.step(record.id.step)
                if not step.speculative or record.attempt == 0 or self._drivers[step.runner].runner.runs_here:
                    continue
                if record.state.is_active:
                    yield twin_of(pack(record.id))
                elif record.state.is_terminal:
                    flight = replace(pack(record.id), is_unwanted=True)
                    yield from (flight, twin_of(flight))

    def start(self, room: Mapping[str, int | None], now: float, pack: Callable[[JobId], Flight]) -> None:
        """Start twins of slow jobs where places are free.

        Args:
            room: Runner name -> free places that no waiting job wants; None for any number.
            now: Seconds since the epoch.
            pack: Gives the flight of a job's latest attempt.
        """
        self.next_at = None
        if not self._steps:
            return
        left = dict(room)
        for trial in list(self._state.live.values()):
            for slow in stragglers(self._state.workflow, trial, self._factor, self._since):
                label = self._state.job(slow.job).label
                if label in self._had_one:
                    continue
                if slow.slow_at > now:
                    self.next_at = min(slow.slow_at, self.next_at or slow.slow_at)
                    continue
                runner = self._state.workflow.step(slow.job.step).runner
                places = left[runner]
                if places == 0:
                    continue
                left[runner] = None if places is None else places - 1
                self._had_one[label] = slow.patience_s
                logger.info("%s takes longer than %.3g s: a second attempt is started", slow.job, slow.patience_s)
                self._drivers[runner].submit([twin_of(pack(slow.job))])

    def places(self, runner: str) -> int:
        """How many places are taken by flights that the state does not count: twins, and losers not yet cancelled."""
        if runner not in self._runners:
            return 0
        return sum(flight.is_twin or self._is_loser(flight) for flight in self._drivers[runner].flights)

    def took(self, flight: Flight) -> None:
        """A backend has a twin, maybe one of an earlier life of this program."""
        self._had_one.setdefault(flight.attempt.label.removesuffix(_SUFFIX), None)

    def ignores(self, flight: Flight, observation: Observation) -> bool:
        """Whether this says nothing about the job: it is over, or its twin is on its way."""
        if flight.job.step not in self._steps:
            return False
        if self._state.job(flight.job).state.is_terminal:
            self._set_aside.pop(flight.job, None)
            return True
        return flight.is_twin and isinstance(observation, IsQueued | IsRunning)

    def sets_aside(self, flight: Flight, observation: HasFailed | WasCancelled) -> bool:
        """Whether a bad end of this flight does not decide about the job."""
        if flight.is_twin:
            logger.info("the second attempt of %s came to nothing: %s", flight.job, _words(observation))
            if flight.job in self._set_aside:
                self._sink.saw(*self._set_aside.pop(flight.job))
            return True
        if not self._driver(flight).is_flying(flight.attempt.label + _SUFFIX):
            return False
        logger.warning("%s: %s; its second attempt goes on", flight.job, _words(observation))
        self._set_aside[flight.job] = flight, observation
        return True

    def settle(self, flight: Flight) -> None:
        """Cancel the other flight of a job that is over."""
        if flight.job.step not in self._steps or not self._state.job(flight.job).state.is_terminal:
            return
        self._set_aside.pop(flight.job, None)
        driver, label = self._driver(flight), flight.attempt.label
        driver.cancel([label.removesuffix(_SUFFIX) if flight.is_twin else label + _SUFFIX])

    def source(self, flight: Flight, source: str) -> str:
        """Where a result comes from, in words for people."""
        if source or not flight.is_twin:
            return source
        patience_s = self._had_one.get(flight.attempt.label.removesuffix(_SUFFIX))
        limit = "its siblings" if patience_s is None else f"{patience_s:.3g} s"
        logger.info("%s: the second attempt was faster", flight.job)
        return f"a second attempt (the first took longer than {limit})"

    def _driver(self, flight: Flight) -> RunnerDriver:
        return self._drivers[self._state.workflow.step(flight.job.step).runner]

    def _is_loser(self, flight: Flight) -> bool:
        return flight.job.step in self._steps and self._state.job(flight.job).state.is_terminal


def _words(observation: HasFailed | WasCancelled) -> str:
    return str(observation.failure) if isinstance(observation, HasFailed) else "cancelled"
