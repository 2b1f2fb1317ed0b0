"""Two flights of one attempt: the first result wins, the other flight is cancelled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import Infeasible
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, WasCancelled
from scheduler.core.specs import RetryPolicy
from scheduler.core.states import JobState, TrialState
from scheduler.engine import Engine, EngineSettings, World
from scheduler.errors import OptimizationInterrupted, RunnerUnavailableError
from scheduler.testing import Fate, InlineLane
from scheduler.testing.fake_runner import call_it

FIRST = "memory-0-sim-p_2+q_20.1"
TWIN = f"{FIRST}.twin"
USUAL_S = 10.0
"""So a job is slow after 20 s."""


@pytest.fixture
def speculative(fan_out):
    """Four points of 'sim', merged by 'final'."""
    sim, final = fan_out.steps
    return replace(fan_out, steps=(replace(sim, speculative=True), final))


def world(first, twin):
    """All jobs are usual, except one: its first flight and its twin have these fates."""

    def fate(attempt):
        special = {FIRST: first, TWIN: twin}.get(attempt.label)
        if special is None:
            return Fate(call_it(attempt).outcome, running_s=USUAL_S)
        return special if special.outcome != "honest" else replace(special, outcome=call_it(attempt).outcome)

    return fate


def succeeding(seconds):
    return Fate("honest", running_s=seconds)


def failing(seconds, message="boom", cause=Cause.EXCEPTION):
    return Fate(HasFailed(Failure(cause, message)), running_s=seconds)


def the_job(b):
    return next(record for record in b.engine.state.trials[0].jobs.values() if record.label == FIRST)


def labels(b):
    return [attempt.label for attempt in b.runner.submitted]


def elapsed(b):
    return b.mailbox.now() - 1_000_000


def nothing_is_left(b):
    b.engine.run_until(lambda: not any(driver.labels for driver in b.engine._drivers.values()))
    return not +b.engine.state.in_flight


def test_that_the_twin_of_a_job_that_hangs_gives_the_result(bench, speculative, caplog):
    caplog.set_level("INFO")
    b = bench(speculative, fate=world(succeeding(10_000), succeeding(USUAL_S)))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert elapsed(b) == pytest.approx(40, abs=2)
    assert the_job(b).source == "a second attempt (the first took longer than 20 s)"
    assert b.runner.cancelled == [FIRST]
    assert b.kinds.count("Submitting") == 5
    assert "takes longer than 20 s: a second attempt is started" in caplog.text
    assert "the second attempt was faster" in caplog.text
    assert nothing_is_left(b)


def test_that_the_twin_has_a_directory_and_a_label_of_its_own(bench, speculative):
    b = bench(speculative, fate=world(succeeding(10_000), succeeding(USUAL_S)))

    b.engine.optimize(1)

    first, twin = (next(each for each in b.runner.submitted if each.label == label) for label in (FIRST, TWIN))
    assert twin == replace(first, label=TWIN, directory=twin.directory)
    assert twin.directory.parent == first.directory.parent
    assert twin.directory != first.directory


def test_that_the_first_wins_when_it_is_over_before_its_twin(bench, speculative):
    b = bench(speculative, fate=world(succeeding(25), succeeding(10_000)))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert the_job(b).source == ""
    assert b.runner.cancelled == [TWIN]
    assert nothing_is_left(b)


def test_that_usual_jobs_and_steps_that_do_not_ask_for_it_have_no_twins(bench, speculative, fan_out):
    usual = bench(speculative, fate=world(succeeding(19), succeeding(1)))
    unasked = bench(fan_out, fate=world(succeeding(1000), succeeding(1)))

    usual.engine.optimize(1)
    unasked.engine.optimize(1)

    assert TWIN not in labels(usual)
    assert TWIN not in labels(unasked)


@pytest.mark.parametrize("bad", [failing(25), Fate(HasSucceeded({"w": 1}), 0, 25), Fate(WasCancelled(), 0, 25)])
def test_that_a_bad_end_of_the_first_does_not_decide_while_its_twin_runs(bench, speculative, bad):
    b = bench(speculative, fate=world(bad, succeeding(50)))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert the_job(b).source.startswith("a second attempt")
    assert nothing_is_left(b)


@pytest.mark.parametrize("bad", [failing(5), Fate(HasSucceeded({"w": 1}), 0, 5), Fate(WasCancelled(), 0, 5)])
def test_that_a_bad_end_of_the_twin_is_nothing(bench, speculative, bad):
    b = bench(speculative, fate=world(succeeding(100), bad))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert labels(b).count(TWIN) == 1
    assert the_job(b).source == ""
    assert nothing_is_left(b)


@pytest.mark.parametrize("twin_s", [1, 50])
def test_that_the_job_fails_by_the_failure_of_the_first_when_both_have_failed(bench, speculative, twin_s):
    b = bench(speculative, fate=world(failing(25, "first"), failing(twin_s, "twin")))

    b.engine.optimize(1)

    assert "first" in b.optimizer.failed[0]
    assert elapsed(b) == pytest.approx(max(25, 20 + twin_s), abs=2)
    assert nothing_is_left(b)


def test_that_a_job_whose_flights_have_both_failed_is_tried_again(bench, speculative):
    sim, final = speculative.steps
    retried = replace(speculative, steps=(replace(sim, retry=RetryPolicy(failed=1)), final))
    b = bench(retried, fate=world(failing(25), failing(50)))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert b.kinds.count("RetryScheduled") == 1
    assert nothing_is_left(b)


def test_that_a_twin_that_its_backend_loses_is_nothing(bench, speculative):
    b = bench(speculative, fate=world(succeeding(1000), Fate(None, running_s=1)))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert b.engine.state.trials[0].jobs[the_job(b).id].lost_attempts == 0


def test_that_a_twin_that_did_not_reach_its_backend_is_not_submitted_again(bench, speculative):
    b = bench(speculative, fate=world(succeeding(100), succeeding(1)))
    honest = b.runner.submit

    def submit(batch):
        if batch[0].label == TWIN:
            raise RunnerUnavailableError("no route")
        return honest(batch)

    b.runner.submit = submit

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert TWIN not in labels(b)
    assert nothing_is_left(b)


def test_that_a_design_that_one_of_two_finds_infeasible_is_infeasible(bench, speculative):
    b = bench(speculative, fate=world(succeeding(10_000), failing(5, str(Infeasible("too heavy")))))

    b.engine.optimize(1)

    assert b.engine.state.trials[0].state is TrialState.INFEASIBLE
    assert FIRST in b.runner.cancelled
    assert nothing_is_left(b)


def test_that_what_the_slower_one_returns_after_all_is_dropped(bench, speculative):
    b = bench(speculative, fate=world(Fate(HasSucceeded({"v": -1}), running_s=35), succeeding(USUAL_S)))
    kept = []
    b.runner.cancel = lambda attempts: None
    b.runner.keep = lambda attempt, job, returned: kept.append(attempt.label)

    b.engine.optimize(1)

    assert nothing_is_left(b)
    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert TWIN in kept
    assert FIRST not in kept


def at(b, seconds, action):
    b.mailbox.at(1_000_000 + seconds, action)


def test_that_a_trial_that_is_cancelled_takes_both_with_it(bench, speculative):
    b = bench(speculative, fate=world(succeeding(10_000), succeeding(10_000)))
    at(b, 30, lambda: b.engine.cancel_trial(0))

    b.engine.optimize(1)

    assert nothing_is_left(b)
    assert sorted(b.runner.cancelled) == [FIRST, TWIN]
    assert the_job(b).state is JobState.CANCELLED


def test_that_a_job_that_is_cancelled_after_its_first_flight_failed_ends(bench, speculative):
    b = bench(speculative, fate=world(failing(25), succeeding(10_000)))
    at(b, 30, lambda: b.engine.cancel_trial(0))

    b.engine.optimize(1)

    assert nothing_is_left(b)
    assert b.runner.cancelled == [TWIN]
    assert not b.engine.state.live


def test_that_a_failed_trial_takes_both_with_it(bench, speculative):
    usual = world(succeeding(10_000), succeeding(10_000))
    b = bench(speculative, fate=lambda a: failing(30, "no beam") if "p_1+q_10" in a.label else usual(a))

    b.engine.optimize(1)

    assert "no beam" in b.optimizer.failed[0]
    assert nothing_is_left(b)
    assert sorted(b.runner.cancelled) == [FIRST, TWIN]


def test_that_a_trial_that_takes_too_long_takes_both_with_it(bench, speculative):
    b = bench(
        speculative,
        fate=world(succeeding(10_000), succeeding(10_000)),
        settings=EngineSettings(trial_timeout_s=60),
    )

    b.engine.optimize(1)

    assert nothing_is_left(b)
    assert sorted(b.runner.cancelled) == [FIRST, TWIN]


def test_that_a_run_that_is_stopped_cancels_both(bench, speculative):
    b = bench(speculative, fate=world(succeeding(10_000), succeeding(10_000)))
    at(b, 30, lambda: b.engine.stop("enough"))

    with pytest.raises(OptimizationInterrupted):
        b.engine.optimize(1)

    assert sorted(b.runner.cancelled) == [FIRST, TWIN]
    assert the_job(b).state is JobState.RUNNING


def test_that_a_job_that_hangs_gets_no_twin_without_a_free_place(bench, speculative):
    b = bench(speculative, fate=world(succeeding(1000), succeeding(1)), capacity=1)
    b.runner.waiting_room = 5

    b.engine.optimize(1)

    assert TWIN not in labels(b)


def test_that_twins_and_losers_take_places(bench, speculative):
    b = bench(
        speculative,
        fate=world(succeeding(10_000), succeeding(USUAL_S)),
        capacity=2,
        settings=EngineSettings(max_parallel_trials=2),
    )
    flights = []
    b.engine.on_progress = lambda _: flights.append(len(b.engine._drivers["fake"].labels))

    b.engine.optimize(4)

    assert TWIN in labels(b)
    assert max(flights) == 2
    assert len(b.optimizer.told) == 4


def test_that_waiting_jobs_go_before_twins(bench, speculative):
    b = bench(
        speculative,
        fate=world(succeeding(10_000), succeeding(USUAL_S)),
        capacity=2,
        settings=EngineSettings(max_parallel_trials=2),
    )
    waiting = []
    honest = b.runner.submit

    def submit(batch):
        if batch[0].label == TWIN:
            waiting.extend(job for trial in b.engine.state.live.values() for job in trial.ready)
        return honest(batch)

    b.runner.submit = submit

    b.engine.optimize(4)

    assert TWIN in labels(b)
    assert waiting == []


def test_that_siblings_that_are_over_at_once_are_an_example_too(bench, speculative):
    usual = world(succeeding(10_000), succeeding(1))
    b = bench(speculative, fate=lambda a: usual(a) if a.label in {FIRST, TWIN} else call_it(a))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
    assert elapsed(b) == pytest.approx(3, abs=1)


@pytest.mark.parametrize("runs_here", [True, False])
def test_that_a_resumed_run_asks_for_twins_where_they_may_have_survived(bench, speculative, runs_here):
    before = bench(speculative, fate=world(succeeding(10_000), succeeding(10_000)))
    at(before, 30, lambda: before.engine.stop("enough"))
    with pytest.raises(OptimizationInterrupted):
        before.engine.optimize(1)
    after = bench(speculative, optimizer=before.optimizer, fate=world(succeeding(1), succeeding(1)))
    after.runner.runs_here = runs_here
    asked = []
    after.runner.find = lambda labels: (asked.extend(labels), {})[1]

    after.engine.resume(enumerate(before.run.events, start=1), saved_at=len(before.run.events))
    after.engine.optimize(0)

    assert FIRST in asked
    assert (TWIN in asked) == (not runs_here)
    assert TWIN not in labels(after)
    assert after.optimizer.told == {0: {"objective": (66.0, None)}}


def test_that_a_loser_whose_cancellation_was_lost_with_the_driver_is_cancelled_by_the_next(bench, speculative):
    usual = world(succeeding(10_000), succeeding(USUAL_S))
    b = bench(speculative, fate=lambda a: replace(usual(a), running_s=100) if "final" in a.label else usual(a))
    honest = b.runner.cancel
    b.runner.cancel = lambda attempts: None
    at(b, 35, lambda: b.engine.stop("the driver dies"))
    with pytest.raises(OptimizationInterrupted):
        b.engine.optimize(1)
    b.runner.cancel = honest
    assert the_job(b).state is JobState.COMPLETED
    assert b.runner.cancelled == []

    engine = Engine(speculative, b.optimizer, {"fake": b.runner}, b.run, world=World(b.mailbox, InlineLane))
    engine.resume(enumerate(b.run.events, start=1), saved_at=len(b.run.events))
    engine.optimize(0)

    engine.state.check()
    assert FIRST in b.runner.cancelled
    assert b.optimizer.told == {0: {"objective": (66.0, None)}}
