"""What happened: frozen facts in the past tense, with a JSON codec and a version per kind.

The sequence of events is the truth about a run; every other view of it can be computed again from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from scheduler.core.failures import Cause, Failure
from scheduler.core.plan import JobId
from scheduler.core.specs import JobKey, Scalar


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A candidate became a trial.

    Attributes:
        trial: The optimizer's index.
        parameters: The design parameters.
        at: Seconds since the epoch.
        origin: How the optimizer came to it, in the optimizer's own words.
        kept: For a trial taken from another run: step whose results are kept -> the ``#job_id`` of its datasets.
    """

    trial: int
    parameters: Mapping[str, Scalar]
    at: float
    origin: str | None = None
    kept: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TrialTold:
    """The optimizer took the trial's outcome.

    Attributes:
        trial: The optimizer's index.
        failure: Why it failed; None when it did not.
        at: Seconds since the epoch.
        metrics: What it was told: name -> (mean, standard error or None); None for a failure.
        standing: The best result, or the hypervolume, after it, in one line.
        infeasible: Why the design is infeasible; None when it is not.
    """

    trial: int
    failure: str | None
    at: float
    metrics: Mapping[str, tuple[float, float | None]] | None = None
    standing: str = ""
    infeasible: str | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to one attempt of a job.

    Attributes:
        job: The job.
        attempt: Number of the attempt, from 1; 0 before the first.
        at: Seconds since the epoch.
    """

    job: JobId
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Submitting(JobEvent):
    """The backend is about to be called for this attempt. Logged first: the write-ahead mark."""

    label: str


@dataclass(frozen=True, slots=True)
class Submitted(JobEvent):
    """The backend took the attempt, or said more about where it is.

    Attributes:
        native_id: The backend's name of it.
        link: Where a person can look at it in the backend's own pages; empty while that is not known.
    """

    native_id: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Started(JobEvent):
    """The payload began to run."""


@dataclass(frozen=True, slots=True)
class Succeeded(JobEvent):
    """The job has its result. The only way to completion; of attempt 0 when the result is that of another run.

    Attributes:
        result: What the payload returned, checked.
        source: Where it comes from when it was not simply run, in words for people; empty otherwise.
    """

    result: Mapping[str, object]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Failed(JobEvent):
    """The job failed for good."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class FoundInfeasible(JobEvent):
    """The job found that the design is infeasible.

    Attributes:
        reason: Why, in words.
        metrics: The violated constraint's metric -> (mean, standard error or None); None when none was named.
    """

    reason: str
    metrics: Mapping[str, tuple[float, float | None]] | None = None


@dataclass(frozen=True, slots=True)
class RetryScheduled(JobEvent):
    """The attempt failed and another one follows.

    Attributes:
        failure: Why this attempt failed.
        due: When the next attempt may start, seconds since the epoch.
    """

    failure: Failure
    due: float


@dataclass(frozen=True, slots=True)
class Withdrawn(JobEvent):
    """The attempt counts for nothing: the parent that it was chained to is tried again, and the job waits for that."""


@dataclass(frozen=True, slots=True)
class CancelRequested(JobEvent):
    """We asked the backend to stop the attempt."""


@dataclass(frozen=True, slots=True)
class Cancelled(JobEvent):
    """The job will not run, or no longer runs, without being at fault itself."""

    reason: str


Event = TrialStarted | TrialTold | JobEvent

_VERSION = 1
_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        TrialStarted,
        TrialTold,
        Submitting,
        Submitted,
        Started,
        Succeeded,
        Failed,
        FoundInfeasible,
        RetryScheduled,
        Withdrawn,
        CancelRequested,
        Cancelled,
    )
}


def encode(event: Event) -> dict[str, object]:
    """The event as a JSON object: its kind, the version of the kind, and its fields."""
    fields = {name: getattr(event, name) for name in type(event).__dataclass_fields__}
    if isinstance(event, JobEvent):
        job = event.job
        fields["job"] = [job.trial, job.step, [list(pair) for pair in job.point]]
    if "failure" in fields and isinstance(fields["failure"], Failure):
        failure = fields["failure"]
        fields["failure"] = {"cause": failure.cause.value, "message": failure.message, "log": failure.log}
    return {"kind": type(event).__name__, "version": _VERSION, **fields}


def decode(record: Mapping[str, object]) -> Event:
    """The event of a JSON object that :func:`encode` made.

    Raises:
        ValueError: The kind or its version is unknown, for example written by a newer release.
    """
    kind, version = record["kind"], record["version"]
    if kind not in _KINDS or version != _VERSION:
        raise ValueError(f"unknown event {kind!r} version {version!r}: was the run written by a newer release?")
    fields = {name: value for name, value in record.items() if name not in {"kind", "version"}}
    if "job" in fields:
        trial, step, point = cast("tuple[int, str, list[tuple[str, Scalar]]]", fields["job"])
        key = cast("JobKey", tuple((name, value) for name, value in point))
        fields["job"] = JobId(trial, step, key)
    metrics = fields.get("metrics")
    if isinstance(metrics, Mapping):
        fields["metrics"] = {name: (mean, sem) for name, (mean, sem) in metrics.items()}
    failure = fields.get("failure")
    if isinstance(failure, Mapping):
        fields["failure"] = Failure(Cause(failure["cause"]), failure["message"], failure["log"])
    return _KINDS[str(kind)](**fields)  # type: ignore[arg-type]
