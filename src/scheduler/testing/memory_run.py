"""A run that leaves nothing on the disk."""

from __future__ import annotations

from pathlib import Path

from scheduler.core.events import Event
from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId, point_text


class MemoryRun:
    """What an engine needs of a run, kept in memory.

    Attributes:
        events: Everything that happened, in order.
    """

    run_id = "memory"

    def __init__(self) -> None:
        self.events: list[Event] = []

    def attempt_directory(self, job: JobId, attempt: int) -> Path:
        """A directory of its own for every attempt; nobody makes it."""
        return Path("trials", str(job.trial), job.step, f"{point_text(job.point)}.{attempt}")

    def append(self, event: Event, state: ExperimentState, snapshot: str | None = None) -> None:  # noqa: ARG002
        """Keep an event."""
        self.events.append(event)

    def commit(self) -> None:
        """Nothing is kept back."""
