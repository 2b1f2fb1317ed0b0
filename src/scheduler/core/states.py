"""The states of jobs and trials, and the one table of transitions between them.

Nothing else in the package assigns a job's state. A job is completed by :class:`~scheduler.core.events.Succeeded`
only, which carries the result: silence, a vanished queue entry or an exit code never complete a job.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from scheduler.core.events import (
    Cancelled,
    CancelRequested,
    Failed,
    FoundInfeasible,
    JobEvent,
    RetryScheduled,
    Started,
    Submitted,
    Submitting,
    Succeeded,
    Withdrawn,
)


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    """For its parents or for a free place."""
    SUBMITTING = "submitting"
    """Written down before the backend is called: after a crash the backend is asked first."""
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    """The last attempt is over; the next one starts after a pause."""
    CANCELLING = "cancelling"
    """We asked; the backend has not confirmed."""
    COMPLETED = "completed"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    """It found that the design need not be evaluated."""
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in _TERMINAL

    @property
    def is_active(self) -> bool:
        """Whether a backend may be busy with the job."""
        return self in _ACTIVE


_TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.INFEASIBLE, JobState.CANCELLED})
_ACTIVE = frozenset({JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING})


class TrialState(StrEnum):
    """Where a trial is; computed from its jobs."""

    CREATED = "created"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the trial has its outcome."""
        return self not in {TrialState.CREATED, TrialState.RUNNING}


_OVER = {
    Succeeded: JobState.COMPLETED,
    Failed: JobState.FAILED,
    FoundInfeasible: JobState.INFEASIBLE,
    Cancelled: JobState.CANCELLED,
}
_ATTEMPT_OVER = {**_OVER, RetryScheduled: JobState.RETRYING, Withdrawn: JobState.WAITING}

_TABLE: dict[JobState, dict[type[JobEvent], JobState]] = {
    JobState.WAITING: {
        Submitting: JobState.SUBMITTING,
        Succeeded: JobState.COMPLETED,  # its result is taken from another run
        Failed: JobState.FAILED,
        Cancelled: JobState.CANCELLED,
    },
    JobState.RETRYING: {
        Submitting: JobState.SUBMITTING,
        Failed: JobState.FAILED,
        Cancelled: JobState.CANCELLED,
    },
    JobState.SUBMITTING: {
        Submitted: JobState.QUEUED,
        Started: JobState.RUNNING,
        CancelRequested: JobState.CANCELLING,
        **_ATTEMPT_OVER,
    },
    JobState.QUEUED: {
        Submitted: JobState.QUEUED,
        Started: JobState.RUNNING,
        CancelRequested: JobState.CANCELLING,
        **_ATTEMPT_OVER,
    },
    JobState.RUNNING: {
        Submitted: JobState.RUNNING,
        Started: JobState.RUNNING,
        CancelRequested: JobState.CANCELLING,
        **_ATTEMPT_OVER,
    },
    JobState.CANCELLING: {
        Submitted: JobState.CANCELLING,
        Started: JobState.CANCELLING,
        CancelRequested: JobState.CANCELLING,
        **_OVER,
    },
    JobState.COMPLETED: {},
    JobState.FAILED: {},
    JobState.INFEASIBLE: {},
    JobState.CANCELLED: {},
}

TRANSITIONS = MappingProxyType({state: MappingProxyType(row) for state, row in _TABLE.items()})
"""State -> event type -> next state. What is not in it cannot happen."""
