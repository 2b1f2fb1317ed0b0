"""Which jobs of a fan-out take much longer than their siblings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from scheduler.core.machine import JobRecord, TrialRecord
from scheduler.core.plan import JobId
from scheduler.core.specs import WorkflowSpec
from scheduler.core.states import JobState

_LEAST_SIBLINGS = 2
"""One duration says nothing about the next one."""
_LEAST_EXCESS_S = 2.0
"""What a job must take longer than the median: starting it again is not worth less."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """A job that is slow, or will be if it goes on.

    Attributes:
        job: The job.
        slow_at: From when on it is slow, seconds since the epoch.
        patience_s: How long it may run until then.
    """

    job: JobId
    slow_at: float
    patience_s: float


def stragglers(workflow: WorkflowSpec, trial: TrialRecord, factor: float, since: float) -> Iterator[Straggler]:
    """The running jobs of speculative steps of a trial whose siblings say how long they should take.

    Siblings are the jobs of the same step in the same trial. At least half of them must be complete, and at least two
    must have run.

    Args:
        workflow: Says which steps are speculative.
        trial: The trial.
        factor: How many times the siblings' median a job may take.
        since: Time before this does not count: nobody watched then.
    """
    if trial.state.is_terminal:
        return
    for step in workflow.steps:
        if not step.speculative:
            continue
        jobs = [record for record in trial.jobs.values() if record.id.step == step.name]
        running = [record for record in jobs if record.state is JobState.RUNNING]
        patience_s = _patience(jobs, factor) if running else None
        if patience_s is None:
            continue
        for record in running:
            assert record.started_at is not None  # noqa: S101 - it runs
            yield Straggler(record.id, max(record.started_at, since) + patience_s, patience_s)


def _patience(jobs: list[JobRecord], factor: float) -> float | None:
    """How long a job may run before it is slow; None while that cannot be said."""
    complete = [record for record in jobs if record.state is JobState.COMPLETED]
    durations = [duration for record in complete if (duration := _duration(record)) is not None]
    if 2 * len(complete) < len(jobs) - 1 or len(durations) < _LEAST_SIBLINGS:
        return None
    usual = median(durations)
    return max(factor * usual, usual + _LEAST_EXCESS_S)


def _duration(record: JobRecord) -> float | None:
    """How long a complete job took at most; None when it was not run.

    One that was over before anybody looked has its time in the queue in it. A result that comes from elsewhere, and so
    says where from, was never seen to run either.
    """
    began_at = record.started_at if record.started_at is not None or record.source else record.submitted_at
    return None if began_at is None or record.ended_at is None else record.ended_at - began_at
