"""What the engine needs of the world outside: a place for events and files, time, and threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scheduler.core.events import Event
from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId
from scheduler.engine.lane import Lane, ThreadLane
from scheduler.engine.mailbox import Mailbox


class Run(Protocol):
    """Where a run keeps its files and its events."""

    @property
    def run_id(self) -> str:
        """Short unique name of the run; part of labels and of ``#job_id``."""
        ...

    def attempt_directory(self, job: JobId, attempt: int) -> Path:
        """The directory of an attempt's files; not created here."""
        ...

    def append(self, event: Event, state: ExperimentState, snapshot: str | None = None) -> None:
        """Write down an event that has just been applied. The engine is the only writer.

        Args:
            event: The event.
            state: The run after it.
            snapshot: The optimizer's state after it, when the event comes from the optimizer.

        Raises:
            StoreError: It could not be written; the engine stops rather than go on unrecorded.
        """
        ...

    def commit(self) -> None:
        """Make all events since the last commit last, as a whole or not at all.

        Raises:
            StoreError: They could not be written; the engine stops.
        """
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What the engine needs of time and threads; the tests bring a simulated one.

    Attributes:
        mailbox: The clock and the queue of news.
        open_lane: Makes a lane.
    """

    mailbox: Mailbox = field(default_factory=Mailbox)
    open_lane: Callable[[str, Mailbox], Lane] = ThreadLane
