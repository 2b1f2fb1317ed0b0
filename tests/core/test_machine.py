from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.strategies import workflows

from scheduler.core.events import (
    Cancelled,
    CancelRequested,
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
    decode,
    encode,
)
from scheduler.core.failures import Cause, Failure
from scheduler.core.machine import (
    Drop,
    ExperimentState,
    Stop,
    Submit,
    Tell,
    decide,
    next_due,
    verdict,
)
from scheduler.core.plan import JobId
from scheduler.core.specs import Function, RetryPolicy, StepSpec, WorkflowSpec
from scheduler.core.states import TRANSITIONS, JobState, TrialState
from scheduler.errors import InvalidTransitionError

ROOM = {"a": None, "b": None}
BOOM = Failure(Cause.EXCEPTION, "boom")
GONE = Failure(Cause.LOST, "gone")
JOB = JobId(0, "only")


@pytest.fixture
def one_job():
    state = ExperimentState(WorkflowSpec((StepSpec("only", Function(print), "a"),), "only"))
    state.apply(TrialStarted(0, {"x": 1.0}, 0.0))
    yield state
    state.check()


PATHS: dict[JobState, list[Event]] = {
    JobState.WAITING: [],
    JobState.SUBMITTING: [Submitting(JOB, 1, 1.0, "l1")],
    JobState.QUEUED: [Submitting(JOB, 1, 1.0, "l1"), Submitted(JOB, 1, 2.0, "n1")],
    JobState.RUNNING: [Submitting(JOB, 1, 1.0, "l1"), Submitted(JOB, 1, 2.0, "n1"), Started(JOB, 1, 3.0)],
    JobState.RETRYING: [Submitting(JOB, 1, 1.0, "l1"), RetryScheduled(JOB, 1, 2.0, GONE, 5.0)],
    JobState.CANCELLING: [Submitting(JOB, 1, 1.0, "l1"), CancelRequested(JOB, 1, 2.0)],
    JobState.COMPLETED: [Submitting(JOB, 1, 1.0, "l1"), Succeeded(JOB, 1, 2.0, {"v": 1})],
    JobState.FAILED: [Submitting(JOB, 1, 1.0, "l1"), Failed(JOB, 1, 2.0, BOOM)],
    JobState.INFEASIBLE: [Submitting(JOB, 1, 1.0, "l1"), FoundInfeasible(JOB, 1, 2.0, "too heavy")],
    JobState.CANCELLED: [Submitting(JOB, 1, 1.0, "l1"), Cancelled(JOB, 1, 2.0, "because")],
}


def events_of(attempt: int) -> list[JobEvent]:
    return [
        Submitted(JOB, attempt, 9.0, "n"),
        Started(JOB, attempt, 9.0),
        Succeeded(JOB, attempt, 9.0, {"v": 1}),
        Failed(JOB, attempt, 9.0, BOOM),
        FoundInfeasible(JOB, attempt, 9.0, "too heavy", {"mass": (3.0, None)}),
        RetryScheduled(JOB, attempt, 9.0, GONE, 10.0),
        Withdrawn(JOB, attempt, 9.0),
        CancelRequested(JOB, attempt, 9.0),
        Cancelled(JOB, attempt, 9.0, "because"),
    ]


@pytest.mark.parametrize("state", list(JobState))
def test_that_every_state_can_be_reached_and_the_table_has_a_row_for_it(one_job, state):
    for event in PATHS[state]:
        one_job.apply(event)

    assert one_job.job(JOB).state is state
    assert state in TRANSITIONS


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("event", events_of(1), ids=lambda event: type(event).__name__)
def test_that_the_table_alone_decides_what_an_event_does(one_job, state, event):
    for earlier in PATHS[state]:
        one_job.apply(earlier)
    attempt = one_job.job(JOB).attempt
    event = type(event)(**{f: getattr(event, f) for f in event.__dataclass_fields__ if f != "attempt"}, attempt=attempt)
    expected = TRANSITIONS[state].get(type(event))

    if state.is_terminal or (
        state is JobState.RETRYING and expected is None and not isinstance(event, CancelRequested)
    ):
        assert not one_job.apply(event)
        assert one_job.job(JOB).state is state
    elif expected is None:
        with pytest.raises(InvalidTransitionError, match="trial 0, step 'only'"):
            one_job.apply(event)
    else:
        one_job.apply(event)
        assert one_job.job(JOB).state is expected


def test_that_a_finished_job_has_no_way_out():
    assert all(not TRANSITIONS[state] for state in JobState if state.is_terminal)


def test_that_only_a_result_completes_a_job():
    completing = {kind for row in TRANSITIONS.values() for kind, to in row.items() if to is JobState.COMPLETED}

    assert completing == {Succeeded}
    assert "result" in Succeeded.__dataclass_fields__


def test_that_impossible_news_is_refused_with_the_history(one_job):
    one_job.apply(Submitting(JOB, 1, 1.0, "l1"))
    one_job.apply(RetryScheduled(JOB, 1, 2.0, GONE, 3.0))

    with pytest.raises(InvalidTransitionError, match="Submitting -> RetryScheduled"):
        one_job.apply(Submitted(JOB, 5, 4.0, "n"))


def test_that_news_of_an_older_attempt_is_dropped(one_job):
    for event in [*PATHS[JobState.RETRYING], Submitting(JOB, 2, 6.0, "l2")]:
        one_job.apply(event)

    assert not one_job.apply(Succeeded(JOB, 1, 7.0, {"v": 1}))
    assert one_job.job(JOB).state is JobState.SUBMITTING


def test_that_a_native_id_that_comes_after_the_start_is_kept(one_job):
    for event in [Submitting(JOB, 1, 1.0, "l1"), Started(JOB, 1, 2.0), Submitted(JOB, 1, 3.0, "n1")]:
        assert one_job.apply(event)

    assert (one_job.job(JOB).state, one_job.job(JOB).native_id) == (JobState.RUNNING, "n1")


def test_that_a_withdrawn_attempt_counts_neither_as_failed_nor_as_lost_and_says_nothing_more(one_job):
    for event in [*PATHS[JobState.RUNNING], Withdrawn(JOB, 1, 4.0)]:
        assert one_job.apply(event)
    assert one_job.job(JOB).state is JobState.WAITING
    assert not one_job.apply(Succeeded(JOB, 1, 5.0, {"v": 1}))
    assert not one_job.apply(Withdrawn(JOB, 1, 5.0))

    one_job.apply(Submitting(JOB, 2, 6.0, "l2"))
    for failure in (BOOM, GONE):
        assert isinstance(verdict(one_job.job(JOB), failure, RetryPolicy(failed=1, lost=1), 7.0), RetryScheduled)
        assert isinstance(verdict(one_job.job(JOB), failure, RetryPolicy(failed=0, lost=0), 7.0), Failed)


def test_that_a_link_that_comes_later_is_kept_once_and_goes_with_its_attempt(one_job):
    for event in [*PATHS[JobState.RUNNING], Submitted(JOB, 1, 4.0, "n1", "https://tasks/1")]:
        assert one_job.apply(event)
    assert not one_job.apply(Submitted(JOB, 1, 5.0, "n1", "https://tasks/1"))
    assert not one_job.apply(Submitted(JOB, 1, 5.0, "n1"))
    assert one_job.job(JOB).link == "https://tasks/1"

    one_job.apply(RetryScheduled(JOB, 1, 6.0, GONE, 7.0))
    one_job.apply(Submitting(JOB, 2, 8.0, "l2"))
    assert one_job.job(JOB).link == ""


def test_that_a_trial_cannot_be_told_before_it_is_over(one_job):
    with pytest.raises(InvalidTransitionError, match="TrialTold"):
        one_job.apply(TrialTold(0, None, 1.0))


def test_that_a_trial_cannot_start_again_with_other_parameters(one_job):
    assert not one_job.apply(TrialStarted(0, {"x": 1.0}, 5.0))
    with pytest.raises(InvalidTransitionError):
        one_job.apply(TrialStarted(0, {"x": 2.0}, 5.0))


@pytest.mark.parametrize(
    "event",
    [*events_of(3), Submitting(JOB, 4, 1.0, "l"), TrialStarted(2, {"x": 1}, 1.0), TrialTold(2, None, 1.0)],
    ids=lambda event: type(event).__name__,
)
def test_that_every_event_survives_its_json_codec(event):
    import json

    assert decode(json.loads(json.dumps(encode(event)))) == event


def test_that_points_survive_the_json_codec():
    event = Started(JobId(1, "s", (("eta", 0.1), ("p", "pi+"), ("flag", True), ("none", None))), 1, 2.0)

    assert decode(encode(event)) == event


def test_that_an_event_of_a_newer_release_is_refused():
    with pytest.raises(ValueError, match="newer release"):
        decode({"kind": "Started", "version": 99})


@pytest.mark.parametrize(
    ("policy", "failures", "ends"),
    [
        (RetryPolicy(failed=0, lost=2), [BOOM], True),
        (RetryPolicy(failed=1, lost=0), [BOOM], False),
        (RetryPolicy(failed=1, lost=0), [BOOM, BOOM], True),
        (RetryPolicy(failed=0, lost=2), [GONE, GONE], False),
        (RetryPolicy(failed=0, lost=2), [GONE, GONE, GONE], True),
        (RetryPolicy(failed=1, lost=1), [GONE, BOOM], False),
        (RetryPolicy(failed=1, lost=1), [GONE, BOOM, GONE], True),
    ],
)
def test_that_lost_and_failed_attempts_have_budgets_of_their_own(one_job, policy, failures, ends):
    event = None
    for number, failure in enumerate(failures, start=1):
        one_job.apply(Submitting(JOB, number, 1.0, f"l{number}"))
        event = verdict(one_job.job(JOB), failure, policy, at=10.0)
        one_job.apply(event)

    assert isinstance(event, Failed if ends else RetryScheduled)


def test_that_pauses_double_and_nothing_is_submitted_before_they_end(one_job):
    policy = RetryPolicy(failed=3, backoff_s=4)
    dues = []
    for number in (1, 2, 3):
        one_job.apply(Submitting(JOB, number, 0.0, f"l{number}"))
        one_job.apply(verdict(one_job.job(JOB), BOOM, policy, at=0.0))
        dues.append(one_job.job(JOB).due)

    assert dues == [4, 8, 16]
    assert decide(one_job, ROOM, now=15.9) == []
    assert next_due(one_job.trials.values(), 15.9) == 16
    assert decide(one_job, ROOM, now=16.0) == [Submit(JOB)]


def test_that_a_job_being_cancelled_is_not_retried(one_job):
    for event in PATHS[JobState.CANCELLING]:
        one_job.apply(event)

    assert isinstance(verdict(one_job.job(JOB), GONE, RetryPolicy(lost=5), 1.0), Failed)


def play(workflow, seed, *, failing=0.0):
    """Run one trial to its end with a backend that brings news in random order, twice, and late."""
    chance = random.Random(seed)
    state = ExperimentState(workflow)
    state.apply(TrialStarted(0, {"x": 1.0}, 0.0))
    news: list[JobEvent] = []
    log: list[Event] = [TrialStarted(0, {"x": 1.0}, 0.0)]
    fates = {}

    def record(event):
        if state.apply(event):
            log.append(event)
            state.check()

    for _ in range(10_000):
        for decision in decide(state, {"a": 2, "b": None}, now=0.0):
            match decision:
                case Submit(job):
                    attempt = state.job(job).attempt + 1
                    record(Submitting(job, attempt, 0.0, f"{job}.{attempt}"))
                    rng = random.Random(f"{seed}{job}")
                    fates[job] = rng.random() < failing
                    end = Failed(job, attempt, 0.0, BOOM) if fates[job] else Succeeded(job, attempt, 0.0, {})
                    news += [Submitted(job, attempt, 0.0, "n"), Started(job, attempt, 0.0), end] * 2
                case Drop(job, reason):
                    record(Cancelled(job, state.job(job).attempt, 0.0, reason))
                case Stop(job):
                    record(CancelRequested(job, state.job(job).attempt, 0.0))
                case Tell(trial):
                    record(TrialTold(trial, None, 0.0))
        if not news:
            break
        record(news.pop(chance.randrange(len(news))))
    return state, log


@given(workflows(), st.integers(0, 2**32))
def test_that_any_order_of_duplicated_and_late_news_completes_every_trial(workflow, seed):
    state, _ = play(workflow, seed)

    assert state.trials[0].state is TrialState.COMPLETED
    assert state.trials[0].is_told
    assert not state.live
    assert not +state.in_flight


@given(workflows(), st.integers(0, 2**16), st.integers(0, 2**16))
def test_that_the_end_state_does_not_depend_on_the_order_of_news(workflow, one, other):
    ends = [play(workflow, seed)[0] for seed in (one, other)]

    assert len({tuple((str(job), record.state) for job, record in e.trials[0].jobs.items()) for e in ends}) == 1


@given(workflows(), st.integers(0, 2**32))
def test_that_a_failure_fails_the_trial_and_no_child_of_it_ever_starts(workflow, seed):
    state, _ = play(workflow, seed, failing=0.3)
    trial = state.trials[0]

    failed = trial.jobs_in(JobState.FAILED)
    assert trial.state is (TrialState.FAILED if failed else TrialState.COMPLETED)
    assert trial.is_told
    assert trial.is_settled
    for record in trial.jobs.values():
        if record.parents_left:
            assert record.attempt == 0, f"{record.id} ran although a parent has no result"


@given(workflows(), st.integers(0, 2**32))
def test_that_replaying_the_log_gives_the_same_state_and_the_same_decisions(workflow, seed):
    _, log = play(workflow, seed, failing=0.2)
    cut = random.Random(seed).randrange(len(log) + 1)

    once, twice = ExperimentState(workflow), ExperimentState(workflow)
    for event in log[:cut]:
        once.apply(event)
        twice.apply(decode(encode(event)))
        twice.apply(event)

    assert once.trials == twice.trials
    assert decide(once, ROOM, 0.0) == decide(twice, ROOM, 0.0) == decide(once, ROOM, 0.0)


@given(workflows(), st.integers(0, 2**32))
def test_that_silence_never_completes_a_job(workflow, seed):
    state = ExperimentState(workflow)
    state.apply(TrialStarted(0, {}, 0.0))
    for decision in decide(state, ROOM, 0.0):
        assert isinstance(decision, Submit)
        state.apply(Submitting(decision.job, 1, 0.0, str(decision.job)))

    for now in (0.0, 1e9):
        assert decide(state, ROOM, now) == []
    assert state.trials[0].jobs_in(JobState.COMPLETED) == []


def test_that_places_go_to_the_oldest_trial_first():
    state = ExperimentState(WorkflowSpec((StepSpec("only", Function(print), "a"),), "only"))
    for trial in (3, 1, 2):
        state.apply(TrialStarted(trial, {}, 0.0))

    assert decide(state, {"a": 2}, 0.0) == [Submit(JobId(1, "only")), Submit(JobId(2, "only"))]
