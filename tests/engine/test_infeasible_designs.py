from __future__ import annotations

import pytest

from scheduler import Infeasible
from scheduler.core.events import TrialTold, decode, encode
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed
from scheduler.core.states import JobState, TrialState
from scheduler.engine import EngineSettings
from scheduler.testing import Fate
from scheduler.testing.fake_runner import call_it


def infeasible(**named):
    return Fate(HasFailed(Failure(Cause.EXCEPTION, f"Infeasible: {Infeasible('too heavy', **named)} (a link)")))


def gate(*trials, **named):
    """Those trials are infeasible in their first step; the other jobs take a while."""

    def fate(attempt):
        number = int(attempt.label.split("-")[1])
        if number in trials and ("p_1+q_10" in attempt.label or "-only-" in attempt.label):
            return infeasible(**named)
        return Fate(call_it(attempt).outcome, running_s=10.0)

    return fate


def test_that_an_infeasible_design_ends_its_trial_at_once_and_is_told_with_its_constraint(bench, fan_out):
    made = bench(fan_out, fate=gate(1, constraint="limit", value=(3.0, 0.5)))

    made.engine.optimize(3)
    made.engine.run_until(lambda: not made.engine.state.live)

    assert made.optimizer.infeasible == {1: ("too heavy", {"limit": (3.0, 0.5)})}
    assert sorted(made.optimizer.told) == [0, 2]
    assert made.optimizer.failed == {}
    trial = made.engine.state.trials[1]
    assert trial.state is TrialState.INFEASIBLE
    states = [record.state for record in trial.jobs.values()]
    assert states.count(JobState.INFEASIBLE) == 1
    assert set(states) == {JobState.INFEASIBLE, JobState.CANCELLED}, "the other points and the merge are stopped"
    summary = made.engine.summary()
    assert (summary.completed, summary.failed, summary.infeasible) == (2, 0, 1)


def test_that_without_a_constraint_there_is_only_the_reason(bench, single):
    made = bench(single, fate=gate(0))
    made.engine.optimize(2)
    assert made.optimizer.infeasible == {0: ("too heavy", None)}


def test_that_infeasible_designs_never_stop_a_run_however_many(bench, single):
    settings = EngineSettings(max_parallel_trials=1, failure_rate=0.0, min_failed_trials=1)
    made = bench(single, fate=gate(*range(9)), settings=settings)

    made.engine.optimize(10)

    assert made.engine.summary().infeasible == 9
    assert made.engine.summary().common_failure == ""


def test_that_a_constraint_that_does_not_exist_is_a_failure_that_names_those_that_do(bench, single):
    made = bench(single, fate=gate(0, constraint="mass", value=3.0))

    made.engine.optimize(1)

    (failure,) = made.optimizer.failed.values()
    assert "no outcome constraint of the experiment is on such a metric; there are: limit" in failure
    assert made.engine.state.trials[0].state is TrialState.FAILED


def test_that_the_first_bad_end_decides_what_becomes_of_the_trial(bench, fan_out):
    """One point fails at 5 s, another finds at 6 s that the design is infeasible."""

    def fate(attempt):
        if "p_1" in attempt.label:
            return Fate(HasFailed(Failure(Cause.EXCEPTION, "boom")), running_s=5.0)
        return Fate(infeasible().outcome, running_s=6.0)

    made = bench(fan_out, fate=fate)
    made.runner.cancel = lambda attempts: None  # a backend that takes its time
    made.engine.optimize(1)
    made.engine.run_until(lambda: not made.engine.state.live)

    assert made.engine.state.trials[0].state is TrialState.FAILED
    assert made.optimizer.infeasible == {}


def test_that_what_was_told_is_in_the_events_and_can_be_repeated(bench, single):
    made = bench(single, fate=gate(0, constraint="limit", value=3.0))
    made.engine.optimize(1)
    (told,) = [event for event in made.run.events if isinstance(event, TrialTold)]
    assert (told.infeasible, told.failure, told.metrics) == ("too heavy", None, {"limit": (3.0, None)})

    again = bench(single)
    again.engine.resume(
        ((number, decode(encode(event))) for number, event in enumerate(made.run.events, 1)), saved_at=0
    )

    assert again.optimizer.infeasible == {0: ("too heavy", {"limit": (3.0, None)})}


@pytest.mark.parametrize("text", ["Infeasible: a word", "ValueError: #infeasible{"])
def test_that_half_a_message_is_an_ordinary_failure(bench, single, text):
    made = bench(single, fate=lambda attempt: Fate(HasFailed(Failure(Cause.EXCEPTION, text))))
    made.engine.optimize(1)
    assert made.engine.state.trials[0].state is TrialState.FAILED
