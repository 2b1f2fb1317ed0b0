from __future__ import annotations

import pytest

from scheduler.core.events import Failed, Started, Submitted, Submitting, Succeeded, TrialStarted
from scheduler.core.failures import Cause, Failure
from scheduler.core.machine import ExperimentState
from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.core.stragglers import stragglers


def workflow(points, *, speculative=True):
    return WorkflowSpec(
        (
            StepSpec("sim", Function(print), "fake", fans_out=True, speculative=speculative),
            StepSpec("end", Function(print), "fake", (Dependency("sim", mapping=DependencyMap.ALL2ONE),)),
        ),
        "end",
        {"p": tuple(range(points))},
    )


def run(durations, points, *, is_seen=True, source="", speculative=True):
    """A trial whose first jobs took so long; all the others began to run at 100."""
    state = ExperimentState(workflow(points, speculative=speculative))
    state.apply(TrialStarted(0, {"x": 1.0}, 0.0))
    jobs = [job for job in state.trials[0].jobs if job.step == "sim"]
    for index, job in enumerate(jobs):
        state.apply(Submitting(job, 1, 90.0, f"label{index}"))
        state.apply(Submitted(job, 1, 90.0, f"id{index}"))
        if is_seen or index >= len(durations):
            state.apply(Started(job, 1, 100.0))
        if index < len(durations):
            state.apply(Succeeded(job, 1, 100.0 + durations[index], {"v": 1}, source))
    return state


def found(state, factor=2.0, since=float("-inf")):
    return list(stragglers(state.workflow, state.trials[0], factor, since))


@pytest.mark.parametrize(
    ("durations", "points", "factor", "patience_s"),
    [
        pytest.param([], 4, 2.0, None, id="nothing is complete"),
        pytest.param([10], 2, 2.0, None, id="one sibling says nothing"),
        pytest.param([10, 10], 3, 2.0, 20, id="two of two siblings"),
        pytest.param([10, 10], 5, 2.0, 20, id="just half of the siblings"),
        pytest.param([10, 10], 6, 2.0, None, id="less than half of the siblings"),
        pytest.param([10, 10, 400], 4, 2.0, 20, id="the median, not the mean"),
        pytest.param([10, 20], 3, 2.0, 30, id="the middle of two"),
        pytest.param([10, 10], 3, 5.0, 50, id="another factor"),
        pytest.param([0.01, 0.01], 3, 2.0, 2.01, id="two seconds more at least"),
        pytest.param([2, 2], 3, 2.0, 4, id="where the floor ends"),
    ],
)
def test_that_patience_follows_from_the_durations_of_the_siblings(durations, points, factor, patience_s):
    slow = found(run(durations, points), factor)

    if patience_s is None:
        assert slow == []
    else:
        assert len(slow) == points - len(durations)
        assert [each.patience_s for each in slow] == [pytest.approx(patience_s)] * len(slow)
        assert [each.slow_at for each in slow] == [pytest.approx(100 + patience_s)] * len(slow)


def test_that_siblings_that_were_over_before_they_were_seen_count_from_their_submission():
    (slow,) = found(run([10, 10, 10], 4, is_seen=False))

    assert slow.patience_s == 40.0


def test_that_siblings_whose_results_come_from_elsewhere_say_nothing():
    assert found(run([10, 10, 10], 4, is_seen=False, source="the cache")) == []


def test_that_siblings_that_were_overtaken_by_their_twins_have_run():
    (slow,) = found(run([10, 10, 10], 4, source="a second attempt"))

    assert slow.patience_s == 20.0


def test_that_time_in_which_nobody_watched_does_not_count():
    (slow,) = found(run([10, 10], 3), since=5000.0)

    assert slow.slow_at == 5020.0


def test_that_steps_that_do_not_ask_for_it_have_no_stragglers():
    assert found(run([10, 10], 3, speculative=False)) == []


def test_that_a_trial_that_has_failed_has_no_stragglers():
    state = run([10, 10], 4)
    job = next(record.id for record in state.trials[0].jobs.values() if record.result is None)
    state.apply(Failed(job, 1, 120.0, Failure(Cause.EXCEPTION, "boom")))

    assert found(state) == []
