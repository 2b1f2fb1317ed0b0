"""The state of a run: records that only events change, and what to do next.

``apply`` is the only writer. What to do next is computed by :func:`decide` from the state alone, never from the last
event, so recovery after a crash is: replay the events, then decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from scheduler.core.events import (
    Event,
    Failed,
    FoundInfeasible,
    JobEvent,
    RetryScheduled,
    Started,
    Submitted,
    Submitting,
    Succeeded,
    TrialStarted,
    TrialTold,
    Withdrawn,
)
from scheduler.core.failures import Failure
from scheduler.core.infeasible import Infeasibility
from scheduler.core.plan import JobId, Link, child_links, jobs_of, parent_links
from scheduler.core.specs import RetryPolicy, Scalar, WorkflowSpec
from scheduler.core.states import TRANSITIONS, JobState, TrialState
from scheduler.errors import InvalidTransitionError

_LATE_WHEN_OVER = (Submitted, Started, Succeeded, FoundInfeasible, RetryScheduled, Withdrawn)
_BAD_ENDS = {
    JobState.FAILED: TrialState.FAILED,
    JobState.INFEASIBLE: TrialState.INFEASIBLE,
    JobState.CANCELLED: TrialState.CANCELLED,
}


@dataclass(slots=True)
class JobRecord:
    """What is known about one job.

    Attributes:
        id: Which job.
        state: Where it is.
        attempt: Number of the latest attempt; 0 before the first.
        label: Our name of the latest attempt.
        native_id: The backend's name of it.
        link: Where a person can look at it in the backend's own pages.
        source: Where its result comes from when it was not simply run.
        result: Its result, once completed.
        failure: Why it failed, or why its last attempt did.
        infeasibility: What it found, when that ended it.
        due: When a retry may start, seconds since the epoch.
        submitted_at: When the latest attempt was handed to the backend.
        started_at: When it was seen to run.
        ended_at: When the job ended.
        lost_attempts: How many of the failed attempts were lost rather than failed.
        withdrawn_attempts: How many attempts were taken back because of their parents.
        history: The names of the events so far.
        parents_left: How many parent jobs hold it back.
    """

    id: JobId
    state: JobState = JobState.WAITING
    attempt: int = 0
    label: str = ""
    native_id: str = ""
    link: str = ""
    source: str = ""
    result: Mapping[str, object] | None = None
    failure: Failure | None = None
    infeasibility: Infeasibility | None = None
    due: float = 0.0
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    lost_attempts: int = 0
    withdrawn_attempts: int = 0
    history: list[str] = field(default_factory=list)
    parents_left: int = 0

    def holds_back(self, child: Link) -> bool:
        """Whether this job keeps the child from being handed to its backend."""
        if self.state is JobState.COMPLETED:
            return False
        may_be_followed = self.state in {JobState.QUEUED, JobState.RUNNING} and bool(self.native_id)
        return not (child.is_chained and may_be_followed)


@dataclass(slots=True)
class TrialRecord:
    """What is known about one trial. Its state is computed from its jobs and cannot disagree with them.

    The first job that ends badly decides how the trial ends, whatever becomes of the others.
    """

    index: int
    parameters: Mapping[str, Scalar]
    started_at: float
    jobs: dict[JobId, JobRecord]
    counts: Counter[JobState]
    ready: dict[JobId, None]
    first_bad: JobId | None = None
    is_told: bool = False
    told_failure: str | None = None
    ended_at: float | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    """See :class:`~scheduler.core.events.TrialStarted`."""

    @property
    def state(self) -> TrialState:
        """Where the trial is."""
        if self.first_bad is not None:
            return _BAD_ENDS[self.jobs[self.first_bad].state]
        if self.counts[JobState.COMPLETED] == len(self.jobs):
            return TrialState.COMPLETED
        return TrialState.CREATED if self.counts[JobState.WAITING] == len(self.jobs) else TrialState.RUNNING

    @property
    def is_settled(self) -> bool:
        """Whether all jobs are over."""
        over = self.counts[JobState.COMPLETED] + sum(self.counts[state] for state in _BAD_ENDS)
        return over == len(self.jobs)

    def jobs_in(self, *states: JobState) -> list[JobRecord]:
        """The jobs in any of these states."""
        if not any(self.counts[state] for state in states):
            return []
        return [record for record in self.jobs.values() if record.state in states]


class ExperimentState:
    """All trials of a run.

    Args:
        workflow: The graph that every trial runs.
    """

    def __init__(self, workflow: WorkflowSpec) -> None:
        self.workflow = workflow
        self._has_chains = workflow.has_chains
        self.trials: dict[int, TrialRecord] = {}
        self.live: dict[int, TrialRecord] = {}
        """Trials that are not told or still have active jobs, by index."""
        self.in_flight: Counter[str] = Counter()
        """Active jobs by runner."""
        self.step_counts: dict[str, Counter[JobState]] = {step.name: Counter() for step in workflow.steps}
        """Jobs of all trials by step and state."""

    def job(self, job: JobId) -> JobRecord:
        """The record of a job."""
        return self.trials[job.trial].jobs[job]

    def is_news(self, event: Event) -> bool:
        """Whether the event would change anything. Late and repeated news is not news.

        Raises:
            InvalidTransitionError: The event cannot happen in the present state.
        """
        match event:
            case TrialStarted():
                return self._is_new_trial(event)
            case TrialTold():
                return self._is_first_telling(event)
            case JobEvent():
                return self._is_job_news(event)
            case _:
                assert_never(event)

    def apply(self, event: Event) -> bool:
        """Let the event happen.

        Returns:
            Whether it was news.

        Raises:
            InvalidTransitionError: The event cannot happen in the present state.
        """
        if not self.is_news(event):
            return False
        match event:
            case TrialStarted():
                self._start(event)
            case TrialTold():
                self._tell(event)
            case JobEvent():
                self._change(event)
            case _:
                assert_never(event)
        return True

    def result(self, trial: int) -> Mapping[str, object]:
        """The result of a completed trial: that of its final step."""
        jobs = self.trials[trial].jobs
        final = next(record for record in jobs.values() if record.id.step == self.workflow.final)
        assert final.result is not None, f"trial {trial} is not complete"  # noqa: S101 - a defect of ours
        return final.result

    def failure(self, trial: int) -> Failure | None:
        """Why a trial failed: the failure of the first job that did."""
        record = self._bad_end(trial)
        return record.failure if record is not None and record.state is JobState.FAILED else None

    def infeasibility(self, trial: int) -> Infeasibility | None:
        """What ended a trial whose design is infeasible."""
        record = self._bad_end(trial)
        return None if record is None else record.infeasibility

    def _bad_end(self, trial: int) -> JobRecord | None:
        record = self.trials[trial]
        return None if record.first_bad is None else record.jobs[record.first_bad]

    def _is_new_trial(self, event: TrialStarted) -> bool:
        known = self.trials.get(event.trial)
        if known is not None and known.parameters != event.parameters:
            raise InvalidTransitionError(f"trial {event.trial}", known.state, "TrialStarted with other parameters")
        return known is None

    def _is_first_telling(self, event: TrialTold) -> bool:
        trial = self.trials[event.trial]
        if not trial.state.is_terminal:
            raise InvalidTransitionError(f"trial {event.trial}", trial.state, "TrialTold")
        return not trial.is_told

    def _is_job_news(self, event: JobEvent) -> bool:
        record = self.job(event.job)
        if record.state.is_terminal or event.attempt < record.attempt:
            return False
        if isinstance(event, Submitting) and event.label == record.label:
            return False
        is_over = record.state in {JobState.RETRYING, JobState.WAITING} and event.attempt == record.attempt > 0
        if is_over and isinstance(event, _LATE_WHEN_OVER):
            return False
        expected = record.attempt + 1 if isinstance(event, Submitting) else record.attempt
        new_state = TRANSITIONS[record.state].get(type(event))
        if new_state is None or event.attempt != expected:
            name = f"{type(event).__name__} of attempt {event.attempt}"
            raise InvalidTransitionError(str(event.job), record.state, name, record.history)
        return new_state is not record.state or (isinstance(event, Submitted) and _says_more(event, record))

    def _start(self, event: TrialStarted) -> None:
        jobs = {job: JobRecord(job) for job in jobs_of(self.workflow, event.trial)}
        for record in jobs.values():
            record.parents_left = len(parent_links(self.workflow, record.id))
        trial = TrialRecord(
            index=event.trial,
            parameters=event.parameters,
            started_at=event.at,
            jobs=jobs,
            counts=Counter({JobState.WAITING: len(jobs)}),
            ready={job: None for job, record in jobs.items() if record.parents_left == 0},
            kept=event.kept or {},
        )
        self.trials[event.trial] = self.live[event.trial] = trial
        for job in jobs:
            self.step_counts[job.step][JobState.WAITING] += 1

    def _tell(self, event: TrialTold) -> None:
        trial = self.trials[event.trial]
        trial.is_told, trial.told_failure = True, event.failure
        self._retire(trial)

    def _change(self, event: JobEvent) -> None:
        trial = self.trials[event.job.trial]
        record = trial.jobs[event.job]
        before, after = record.state, TRANSITIONS[record.state][type(event)]
        children = self._children_to_watch(record, after)
        held = [record.holds_back(child) for child in children]
        _note(record, event)
        record.state = after
        for counts in (trial.counts, self.step_counts[event.job.step]):
            counts[before] -= 1
            counts[after] += 1
        self.in_flight[self.workflow.step(event.job.step).runner] += after.is_active - before.is_active
        self._update_ready(trial, record)
        for child, was_held in zip(children, held, strict=True):
            trial.jobs[child.job].parents_left += record.holds_back(child) - was_held
            self._update_ready(trial, trial.jobs[child.job])
        if after.is_terminal:
            self._settle(trial, record, event.at)

    def _children_to_watch(self, record: JobRecord, after: JobState) -> tuple[Link, ...]:
        """The children that a job may hold back or let go when it gets into a state."""
        matters = after is JobState.COMPLETED or self._has_chains
        return child_links(self.workflow, record.id) if matters else ()

    def _update_ready(self, trial: TrialRecord, record: JobRecord) -> None:
        if record.state in {JobState.WAITING, JobState.RETRYING} and record.parents_left == 0:
            trial.ready[record.id] = None
        else:
            trial.ready.pop(record.id, None)

    def _settle(self, trial: TrialRecord, record: JobRecord, at: float) -> None:
        record.ended_at = at
        if record.state in _BAD_ENDS and trial.first_bad is None:
            trial.first_bad = record.id
        if trial.state.is_terminal and trial.ended_at is None:
            trial.ended_at = at
        self._retire(trial)

    def _retire(self, trial: TrialRecord) -> None:
        if trial.is_told and trial.is_settled:
            self.live.pop(trial.index, None)

    def check(self) -> None:
        """Verify the invariants: every derived field agrees with the records it was derived from.

        Raises:
            AssertionError: With what disagrees.
        """
        in_flight: Counter[str] = Counter()
        by_step: dict[str, Counter[JobState]] = {step.name: Counter() for step in self.workflow.steps}
        for trial in self.trials.values():
            _check_trial(self.workflow, trial)
            for record in trial.jobs.values():
                in_flight[self.workflow.step(record.id.step).runner] += record.state.is_active
                by_step[record.id.step][record.state] += 1
            is_live = not (trial.is_told and trial.is_settled)
            assert is_live == (trial.index in self.live), f"trial {trial.index}: live"  # noqa: S101
        for step, counted in by_step.items():
            assert counted == +self.step_counts[step], f"step {step}: counts"  # noqa: S101
        assert +in_flight == +self.in_flight, f"in flight: {in_flight} != {self.in_flight}"  # noqa: S101


def _says_more(event: Submitted, record: JobRecord) -> bool:
    return event.native_id != record.native_id or event.link not in {"", record.link}


def _note(record: JobRecord, event: JobEvent) -> None:
    """Copy what the event carries into the record."""
    record.history.append(type(event).__name__)
    match event:
        case Submitting():
            record.attempt, record.label, record.native_id = event.attempt, event.label, ""
            record.link, record.submitted_at, record.started_at = "", event.at, None
        case Submitted():
            record.native_id, record.link = event.native_id, event.link or record.link
        case Started():
            record.started_at = event.at
        case Succeeded():
            record.result, record.source = event.result, event.source
        case RetryScheduled():
            record.failure, record.due = event.failure, event.due
            record.lost_attempts += event.failure.cause.is_lost
        case Withdrawn():
            record.withdrawn_attempts += 1
        case Failed():
            record.failure = event.failure
        case FoundInfeasible():
            record.infeasibility = Infeasibility(event.reason, event.metrics)
        case _:
            pass


def _check_trial(workflow: WorkflowSpec, trial: TrialRecord) -> None:
    records = trial.jobs.values()
    name = f"trial {trial.index}"
    counted = Counter(record.state for record in records)
    assert +trial.counts == counted, f"{name}: counts {trial.counts} != {counted}"  # noqa: S101
    for record in records:
        parents = parent_links(workflow, record.id)
        left = sum(trial.jobs[parent.job].holds_back(Link(record.id, parent.is_chained)) for parent in parents)
        incomplete = [parent for parent in parents if trial.jobs[parent.job].state is not JobState.COMPLETED]
        is_ready = left == 0 and record.state in {JobState.WAITING, JobState.RETRYING}
        assert record.parents_left == left, f"{record.id}: parents_left"  # noqa: S101
        assert is_ready == (record.id in trial.ready), f"{record.id}: ready"  # noqa: S101
        assert (record.result is not None) == (record.state is JobState.COMPLETED), f"{record.id}: result"  # noqa: S101
        started = record.state is not JobState.WAITING and record.state not in _BAD_ENDS
        may_be_early = record.state is not JobState.COMPLETED and all(parent.is_chained for parent in incomplete)
        assert not (started and incomplete) or may_be_early, f"{record.id} was before its parents"  # noqa: S101
    is_bad = any(trial.counts[state] for state in _BAD_ENDS)
    assert is_bad == (trial.first_bad is not None), f"{name}: first bad end"  # noqa: S101
    assert not trial.is_told or trial.state.is_terminal, f"{name}: told before it was over"  # noqa: S101


def verdict(record: JobRecord, failure: Failure, policy: RetryPolicy, at: float) -> Failed | RetryScheduled:
    """What a failed attempt means for its job: another attempt after a pause, or the end.

    Args:
        record: The job.
        failure: Why the attempt failed.
        policy: How often jobs of this step are tried again.
        at: Seconds since the epoch.
    """
    if failure.cause.is_lost:
        retries, allowed = record.lost_attempts, policy.lost
    else:
        earlier = record.attempt - 1 - record.withdrawn_attempts
        retries, allowed = earlier - record.lost_attempts, policy.failed
    if retries >= allowed or record.state is JobState.CANCELLING:
        return Failed(record.id, record.attempt, at, failure)
    return RetryScheduled(record.id, record.attempt, at, failure, due=at + policy.backoff_s * 2**retries)


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand the job to its runner."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Drop:
    """The job will never run: its trial has already failed."""

    job: JobId
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the runner to stop the job: its trial has already failed."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the job back: the parent that it was chained to is tried again."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Tell:
    """The trial has its outcome: tell the optimizer."""

    trial: int


Decision = Submit | Drop | Stop | Withdraw | Tell


def decide(state: ExperimentState, room: Mapping[str, int | None], now: float) -> list[Decision]:
    """What to do next. Pure and repeatable: the same state gives the same decisions until they are carried out.

    Args:
        state: The run.
        room: Runner name -> how many more attempts it may have in flight; None for any number.
        now: Seconds since the epoch, for retries that wait for their time.
    """
    left = dict(room)
    decisions: list[Decision] = []
    for trial in sorted(state.live.values(), key=lambda trial: trial.index):
        if trial.state.is_terminal:
            decisions.extend(_wind_up(trial))
        else:
            decisions.extend(_take_back(trial))
            decisions.extend(_submit_ready(state.workflow, trial, left, now))
    return decisions


def next_due(trials: Iterable[TrialRecord], now: float) -> float | None:
    """When the next pause before a retry ends, if any job waits for one."""
    times = [
        trial.jobs[job].due
        for trial in trials
        if trial.counts[JobState.RETRYING]
        for job in trial.ready
        if trial.jobs[job].due > now
    ]
    return min(times, default=None)


def _wind_up(trial: TrialRecord) -> Iterator[Decision]:
    if not trial.is_told:
        yield Tell(trial.index)
    if trial.is_settled:
        return
    reason = f"trial {trial.index} is over: {trial.state}"
    for record in trial.jobs.values():
        if record.state in {JobState.WAITING, JobState.RETRYING}:
            yield Drop(record.id, reason)
        elif record.state.is_active and record.state is not JobState.CANCELLING:
            yield Stop(record.id)


def _take_back(trial: TrialRecord) -> Iterator[Decision]:
    for record in trial.jobs_in(JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING):
        if record.parents_left:
            yield Withdraw(record.id)


def _submit_ready(
    workflow: WorkflowSpec, trial: TrialRecord, left: dict[str, int | None], now: float
) -> Iterator[Decision]:
    for job in trial.ready:
        runner = workflow.step(job.step).runner
        places = left[runner]
        if places == 0:
            continue
        if trial.jobs[job].due > now:
            continue
        if places is not None:
            left[runner] = places - 1
        yield Submit(job)
