"""Steps joined by datasets that the backend itself chains: handed over early, judged in their parents' light."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.engine.test_crash_and_resume import CHAINED

from scheduler.core.events import Succeeded, Withdrawn
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsRunning
from scheduler.core.states import TrialState
from scheduler.engine import EngineSettings
from scheduler.testing import Fate
from scheduler.testing.fake_runner import call_it

MAKE_S, READ_S = 10.0, 5.0


def well(attempt):
    return Fate(call_it(attempt).outcome, running_s=MAKE_S if "-make-" in attempt.label else READ_S)


@pytest.fixture
def chained(bench):
    """Makes benches of the chained workflow, whose backend chains."""

    def make(fate=well, **options):
        made = bench(CHAINED, fate=fate, settings=EngineSettings(max_parallel_trials=1, min_failed_trials=9), **options)
        made.runner.chains_datasets = True
        return made

    return make


def attempts(bench, step):
    return [attempt for attempt in bench.runner.submitted if f"-{step}-" in attempt.label]


def test_that_a_child_is_handed_over_while_its_parent_runs_and_says_whom_it_follows(chained):
    made = chained()

    made.engine.optimize(1)

    makers, readers = attempts(made, "make"), attempts(made, "sim")
    native = made.runner.find([attempt.label for attempt in makers])
    assert [reader.follows for reader in readers] == [native[maker.label] for maker in makers]
    assert not any(attempt.returns_result for attempt in makers)
    assert made.runner.submitted.index(readers[-1]) < 4, "both readers were there before any maker was done"
    assert made.engine.state.trials[0].state is TrialState.COMPLETED


def test_that_a_runner_that_cannot_chain_this_one_gets_it_after_its_parent(chained, monkeypatch):
    made = chained()
    monkeypatch.setattr(made.runner, "may_be_followed", lambda native_id: False)

    made.engine.optimize(1)

    assert [reader.follows for reader in attempts(made, "sim")] == ["", ""]
    assert made.engine.state.trials[0].state is TrialState.COMPLETED


def test_that_the_outcome_of_a_child_counts_only_when_its_parent_is_complete(chained, monkeypatch):
    made = chained()
    poll = made.runner.poll

    def children_first(attempts):
        """What a backend says of a child may come before it says that the parent is done."""
        seen = poll(attempts)
        waits = any("-sim-" in label and not isinstance(each, HasSucceeded) for label, each in seen.items())
        return {label: IsRunning() if "-make-" in label and waits else each for label, each in seen.items()}

    monkeypatch.setattr(made.runner, "poll", children_first)

    made.engine.optimize(1)

    order = [event.job.step for event in made.run.events if isinstance(event, Succeeded)]
    assert order == ["make", "make", "sim", "sim", "end"]


def first_makers_lost():
    """The first attempt of each maker vanishes when it should be done."""
    begun = set()

    def fate(attempt):
        point = attempt.arguments.get("p")
        if "-make-" in attempt.label and point not in begun:
            begun.add(point)
            return Fate(HasFailed(Failure(Cause.LOST, "gone")), running_s=MAKE_S)
        return well(attempt)

    return fate


def test_that_a_child_is_taken_back_and_handed_over_again_when_its_parent_is_tried_again(chained):
    made = chained(first_makers_lost())

    made.engine.optimize(1)

    assert sum(isinstance(event, Withdrawn) for event in made.run.events) == 2
    assert len(attempts(made, "sim")) == 4
    assert made.engine.state.trials[0].state is TrialState.COMPLETED
    record = next(each for each in made.engine.state.trials[0].jobs.values() if each.id.step == "sim")
    assert (record.attempt, record.withdrawn_attempts, record.lost_attempts) == (2, 1, 0)


def always_failing(attempt):
    if "-make-" in attempt.label:
        return Fate(HasFailed(Failure(Cause.EXCEPTION, "no beam")), running_s=MAKE_S)
    return well(attempt)


def test_that_the_failure_of_a_parent_is_that_of_the_trial_and_not_what_it_broke(chained):
    made = chained(always_failing)

    made.engine.optimize(1)
    made.engine.run_until(lambda: not made.engine.state.live)

    assert made.engine.state.failure(0) == Failure(Cause.EXCEPTION, "no beam")
    assert not made.engine._early


def test_that_a_cancelled_trial_takes_its_chained_jobs_along(chained):
    made = chained()
    made.mailbox.at(made.mailbox.now() + MAKE_S / 2, lambda: made.engine.cancel_trial(0))

    made.engine.optimize(1)
    made.engine.run_until(lambda: not made.engine.state.live)

    assert made.engine.state.trials[0].state is TrialState.CANCELLED
    assert len(made.runner.cancelled) == 4


def test_that_a_step_is_chained_only_to_one_job_that_returns_nothing(fan_out):
    make, sim, _ = CHAINED.steps
    assert CHAINED.has_chains
    assert not fan_out.has_chains
    plain = replace(sim, dependencies=tuple(replace(each, is_chained=False) for each in sim.dependencies))
    assert not replace(CHAINED, steps=(make, plain, CHAINED.steps[2])).has_chains
