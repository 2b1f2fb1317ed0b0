"""A job as programs see it: a window on the engine's record."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from scheduler.core.machine import JobRecord
from scheduler.core.plan import contract_key
from scheduler.core.specs import JobKey
from scheduler.job.job_state import JobState


class JobType(Enum):
    """What a job runs."""

    FUNCTION = "function"
    SCRIPT = "script"
    CONTAINER = "container"
    MULTISTEPSFUNCTION = "multistepsfunction"


class Job:
    """One job of a trial. Read-only: it always shows the present state.

    Args:
        record: The engine's record.
        job_type: What the job runs.
    """

    def __init__(self, record: JobRecord, job_type: JobType = JobType.FUNCTION) -> None:
        self._record = record
        self.job_type = job_type

    @property
    def job_id(self) -> str:
        """The label of the latest attempt; empty before the first."""
        return self._record.label

    @property
    def step(self) -> str:
        """Name of the step."""
        return self._record.id.step

    @property
    def job_key(self) -> JobKey | str:
        """The combination of global parameters, or ``"None"``."""
        return contract_key(self._record.id.point)

    @property
    def state(self) -> JobState:
        """Where the job is."""
        return self._record.state

    @property
    def results(self) -> dict[str, object] | None:
        """What the job returned; None until it is completed."""
        return None if self._record.result is None else dict(self._record.result)

    @property
    def error(self) -> str | None:
        """Why it failed, in one sentence; None if it did not."""
        return None if self._record.failure is None else str(self._record.failure)

    @property
    def attempts(self) -> int:
        """How often it was submitted."""
        return self._record.attempt

    def get_results(self) -> Mapping[str, object] | None:
        """What the job returned; None until it is completed."""
        return self.results

    def is_running(self) -> bool:
        """Whether it is at its backend."""
        return self.state.is_active

    def is_completed(self) -> bool:
        """Whether it has its result."""
        return self.state is JobState.COMPLETED

    def has_failed(self) -> bool:
        """Whether it failed for good."""
        return self.state is JobState.FAILED

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._record.id}, {self.state})"
