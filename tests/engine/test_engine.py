from __future__ import annotations

import re
from collections import Counter

import pytest

from scheduler.core.events import Submitted
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, WasCancelled
from scheduler.core.specs import Dependency, DependencyMap, Function, RetryPolicy, StepSpec, WorkflowSpec
from scheduler.core.states import JobState, TrialState
from scheduler.engine import Engine, EngineSettings, World
from scheduler.errors import GenerationError, OptimizationInterrupted, RunnerUnavailableError, TooManyFailuresError
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, InlineLane
from scheduler.testing.fake_runner import call_it


def failing(message="boom"):
    return Fate(HasFailed(Failure(Cause.EXCEPTION, message)))


def lasting(seconds, queued=0.0):
    def fate(attempt):
        return Fate(call_it(attempt).outcome, queued_s=queued, running_s=seconds)

    return fate


def test_that_every_trial_is_told_exactly_once(bench, single):
    b = bench(single)

    b.engine.optimize(5)

    assert b.optimizer.told == {index: {"objective": (float(index), None)} for index in range(5)}
    assert b.optimizer.failed == {}


def test_that_a_merge_gets_the_results_of_all_points_under_their_keys(bench, fan_out):
    b = bench(fan_out)

    b.engine.optimize(1)

    merge = next(attempt for attempt in b.runner.submitted if "final" in attempt.label)
    assert merge.arguments["v"] == {
        (("p", 1), ("q", 10)): 11.0,
        (("p", 1), ("q", 20)): 21.0,
        (("p", 2), ("q", 10)): 12.0,
        (("p", 2), ("q", 20)): 22.0,
    }
    assert b.optimizer.told == {0: {"objective": (66.0, None)}}


def test_that_one_failed_point_fails_the_trial_and_the_merge_never_runs(bench, fan_out):
    def fate(attempt):
        is_bad = attempt.arguments.get("p") == 2 and attempt.arguments["q"] == 10
        return failing("no beam") if is_bad else call_it(attempt)

    b = bench(fan_out, fate=fate)

    b.engine.optimize(1)

    assert not any("final" in attempt.label for attempt in b.runner.submitted)
    assert b.optimizer.told == {}
    assert "no beam" in b.optimizer.failed[0]
    assert b.engine.state.trials[0].state is TrialState.FAILED


def test_that_a_failed_trial_cancels_its_running_jobs_and_frees_their_places(bench, fan_out):
    def fate(attempt):
        return failing() if attempt.arguments.get("p") == 1 else lasting(1000)(attempt)

    b = bench(fan_out, fate=fate)

    b.engine.optimize(1)
    b.engine.run_until(lambda: not b.engine.state.live)

    assert len(b.runner.cancelled) == 2
    assert b.mailbox.now() < 1_000_900
    assert not +b.engine.state.in_flight


def test_that_jobs_are_cancelled_when_the_backend_answers_again_if_it_did_not_at_first(bench, fan_out):
    def fate(attempt):
        return failing() if attempt.arguments.get("p") == 1 else lasting(1000)(attempt)

    b = bench(fan_out, fate=fate)
    honest, outages = b.runner.cancel, iter([1, 2, 3])

    def cancel(attempts):
        if next(outages, None) is not None:
            raise RunnerUnavailableError("no route to host")
        honest(attempts)

    b.runner.cancel = cancel
    b.engine.optimize(1)
    b.engine.run_until(lambda: not b.engine.state.live)

    assert len(b.runner.cancelled) == 2
    assert b.mailbox.now() < 1_000_100


def test_that_other_trials_go_on_when_one_fails(bench, single):
    b = bench(single, fate=lambda a: failing() if a.arguments["x"] == 2 else call_it(a))

    b.engine.optimize(6)

    assert sorted(b.optimizer.told) == [0, 1, 3, 4, 5]
    assert list(b.optimizer.failed) == [2]


def test_that_trials_overlap_up_to_the_limit_and_no_further(bench, single):
    b = bench(single, fate=lasting(10), settings=EngineSettings(max_parallel_trials=3))
    seen = []
    b.engine.on_progress = lambda summary: seen.append(summary.running)

    b.engine.optimize(9)

    assert max(seen) == 3
    assert b.mailbox.now() - 1_000_000 == pytest.approx(30, abs=1)


def test_that_the_capacity_of_the_runner_bounds_trials_and_submissions(bench, fan_out):
    b = bench(fan_out, fate=lasting(1), capacity=2)
    in_flight = []
    b.engine.on_progress = lambda _: in_flight.append(b.engine.state.in_flight["fake"])

    b.engine.optimize(4)

    assert max(in_flight) == 2
    assert len(b.optimizer.told) == 4


def test_that_jobs_wait_in_the_waiting_room_of_the_runner_and_trials_do_not(bench, fan_out):
    b = bench(fan_out, fate=lasting(1), capacity=2)
    b.runner.waiting_room = 3
    in_flight, running = [], []
    b.engine.on_progress = lambda summary: (
        in_flight.append(b.engine.state.in_flight["fake"]),
        running.append(summary.running),
    )

    b.engine.optimize(6)

    assert max(in_flight) == 5
    assert max(running) == 2
    assert len(b.optimizer.told) == 6


def test_that_the_optimizer_is_not_asked_again_before_a_result_when_it_must_wait(bench, single):
    optimizer = FakeOptimizer(initial=3, parallel=2)
    asked = Counter()
    honest = optimizer.ask
    optimizer.ask = lambda at_most: (asked.update(asked=1), honest(at_most))[1]
    b = bench(single, optimizer=optimizer, fate=lasting(5))

    b.engine.optimize(8)

    assert len(optimizer.told) == 8
    assert asked["asked"] <= 8 + len(optimizer.told) + 1


def test_that_a_strategy_that_is_complete_ends_the_run_with_what_there_is(bench, single):
    b = bench(single, optimizer=FakeOptimizer(total=3))

    b.engine.optimize(10)

    assert len(b.optimizer.told) == 3


def test_that_an_error_of_the_optimizer_is_raised_after_running_trials_are_told(bench, single):
    b = bench(single, optimizer=FakeOptimizer(fails_at=2), fate=lasting(50))

    with pytest.raises(GenerationError, match="the fit failed"):
        b.engine.optimize(5)

    assert sorted(b.optimizer.told) == [0, 1]


def test_that_a_starved_optimizer_is_an_error_and_not_a_silent_end(bench, single):
    b = bench(single, optimizer=FakeOptimizer(initial=3), fate=lambda a: failing())

    with pytest.raises(GenerationError, match="wants more results"):
        b.engine.optimize(10)


def test_that_more_than_half_of_five_failed_trials_stop_the_run_with_the_commonest_cause(bench, single):
    def fate(attempt):
        return call_it(attempt) if attempt.arguments["x"] in {0, 1} else failing("geometry overlaps")

    b = bench(single, fate=fate, settings=EngineSettings(max_parallel_trials=1))

    with pytest.raises(TooManyFailuresError, match=r"3 of 5 trials failed.*3 times.*geometry overlaps"):
        b.engine.optimize(100)

    assert len(b.runner.submitted) == 5


def test_that_exactly_half_failing_does_not_stop_the_run(bench, single):
    b = bench(single, fate=lambda a: failing() if a.arguments["x"] % 2 else call_it(a))

    b.engine.optimize(20)

    assert len(b.optimizer.told) == len(b.optimizer.failed) == 10


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None"),
        ({"objective": float("nan")}, "'objective' is nan"),
        ({"objective": float("inf")}, "'objective' is inf"),
        ({"other": 1.0}, "no 'objective'; it returned other"),
        ({"objective": "good"}, "'objective' is 'good'"),
        ({"objective": 1.0, "extra": {"a": 1}}, "'extra' is"),
        ([1, 2, 3], r"returned \[1, 2, 3\]"),
    ],
)
def test_that_what_is_no_result_fails_the_trial_and_names_metric_and_trial(bench, single, returned, message):
    b = bench(single, fate=lambda a: Fate(HasSucceeded(returned)))

    b.engine.optimize(1)

    failure = b.engine.state.failure(0)
    assert failure.cause is Cause.RESULT
    assert "trial 0" in failure.message
    assert re.search(message, failure.message)


def test_that_a_bare_number_is_the_objective_when_there_is_only_one(bench, single):
    b = bench(single, fate=lambda a: Fate(HasSucceeded([0.5, 0.1])))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (0.5, 0.1)}}


def test_that_texts_stay_with_the_trial_and_numbers_reach_the_optimizer(bench, single):
    b = bench(single, fate=lambda a: Fate(HasSucceeded({"objective": 1, "n_hits": 7, "note": "ok"})))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (1.0, None), "n_hits": (7.0, None)}}
    assert b.engine.state.result(0)["note"] == "ok"


def test_that_a_lost_attempt_is_tried_again_and_a_failed_one_is_not(bench, single):
    fates = iter([Fate(None), Fate(HasSucceeded({"objective": 1.0}))])
    b = bench(single, fate=lambda a: next(fates))

    b.engine.optimize(1)

    assert b.kinds.count("RetryScheduled") == 1
    assert b.mailbox.now() - 1_000_000 > b.engine.settings.lost_after_s
    assert len(b.optimizer.told) == 1


def test_that_retries_are_counted_paused_and_end_in_failure(bench):
    step = StepSpec("s", Function(print), "fake", retry=RetryPolicy(failed=2, backoff_s=10))
    b = bench(WorkflowSpec((step,), "s"), fate=lambda a: failing())

    b.engine.optimize(1)

    assert len(b.runner.submitted) == 3
    assert len({attempt.label for attempt in b.runner.submitted}) == 3
    assert len({attempt.directory for attempt in b.runner.submitted}) == 3
    assert b.mailbox.now() - 1_000_000 >= 30


def test_that_an_outage_of_the_backend_changes_no_job(bench, single):
    b = bench(single, fate=lasting(5))
    honest, calls = b.runner.poll, Counter()

    def poll(attempts):
        calls["poll"] += 1
        if calls["poll"] < 12:
            raise RunnerUnavailableError("no route to host")
        return honest(attempts)

    b.runner.poll = poll
    b.engine.optimize(1)

    assert "Failed" not in b.kinds
    assert "RetryScheduled" not in b.kinds
    assert len(b.optimizer.told) == 1


def test_that_after_an_unanswered_submission_the_backend_is_asked_before_it_is_done_again(bench, single):
    b = bench(single)
    honest, calls = b.runner.submit, Counter()

    def submit(batch):
        calls["submit"] += 1
        if calls["submit"] == 1:
            honest(batch)  # it arrived, but the answer got lost
            raise RunnerUnavailableError("timed out")
        if calls["submit"] == 2:
            raise RunnerUnavailableError("timed out")  # it did not arrive
        return honest(batch)

    b.runner.submit = submit
    b.engine.optimize(2)

    assert len(b.runner.submitted) == 2, "the fake refuses a label that it has seen"
    assert len(b.optimizer.told) == 2


def test_that_a_submission_refused_for_good_fails_the_trial(bench, single):
    b = bench(single)
    b.runner.submit = lambda batch: {a.label: Failure(Cause.SUBMISSION, "queue unknown") for a in batch}

    b.engine.optimize(1)

    assert "queue unknown" in b.optimizer.failed[0]


def test_that_a_job_cancelled_at_the_backend_ends_its_trial_as_cancelled(bench, single):
    b = bench(single, fate=lambda a: Fate(WasCancelled()))

    b.engine.optimize(1)

    assert b.engine.state.trials[0].state is TrialState.CANCELLED
    assert list(b.optimizer.failed) == [0]


def test_that_a_trial_over_its_time_fails_and_its_job_is_cancelled(bench, single):
    b = bench(single, fate=lasting(1000), settings=EngineSettings(trial_timeout_s=60))

    b.engine.optimize(1)
    b.engine.run_until(lambda: not b.engine.state.live)

    assert b.mailbox.now() - 1_000_000 == pytest.approx(60, abs=1)
    assert "longer than max_trial_monitoring_time=60 s" in b.optimizer.failed[0]
    assert len(b.runner.cancelled) == 1


def test_that_stop_cancels_running_jobs_and_leaves_them_undecided(bench, single):
    b = bench(single, fate=lasting(1000), settings=EngineSettings(max_parallel_trials=2))
    b.mailbox.at(1_000_010, lambda: b.engine.stop("Ctrl-C"))

    with pytest.raises(OptimizationInterrupted, match="Ctrl-C"):
        b.engine.optimize(5)

    assert len(b.runner.cancelled) == 2
    assert [trial.state for trial in b.engine.state.trials.values()] == [TrialState.RUNNING] * 2
    assert b.optimizer.told == b.optimizer.failed == {}


def test_that_finish_lets_running_trials_end_and_starts_no_others(bench, single):
    b = bench(single, fate=lasting(100), settings=EngineSettings(max_parallel_trials=2))
    b.mailbox.at(1_000_010, b.engine.finish)

    b.engine.optimize(50)

    assert len(b.optimizer.told) == 2


def test_that_held_trials_are_told_only_when_released(bench, single):
    b = bench(single)
    candidate = b.optimizer.attach({"x": 4.0})

    b.engine.start([candidate], hold=True)
    b.engine.run_until(lambda: b.engine.state.trials[0].state.is_terminal)
    assert b.optimizer.told == {}

    b.engine.release([0])
    b.engine.run_until(lambda: b.engine.state.trials[0].is_told)
    assert b.optimizer.told == {0: {"objective": (4.0, None)}}


def test_that_steps_of_a_diamond_run_in_order_and_in_parallel(bench):
    def dep(parent, parameter=None):
        return Dependency(parent, parameter=parameter)

    workflow = WorkflowSpec(
        (
            StepSpec("top", Function(lambda x: {"a": x}), "fake"),
            StepSpec("left", Function(lambda x, a: {"b": a + 1}), "fake", (dep("top", "a"),)),
            StepSpec("right", Function(lambda x, a: {"c": a + 2}), "fake", (dep("top", "a"),)),
            StepSpec(
                "end",
                Function(lambda x, b, c: {"objective": b * c}),
                "fake",
                (dep("left", "b"), dep("right", "c")),
            ),
        ),
        "end",
    )
    b = bench(workflow, fate=lasting(10))

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (2.0, None)}}
    assert b.mailbox.now() - 1_000_000 == pytest.approx(30, abs=1)


def test_that_one2one_pairs_equal_points_and_a_single_parent_serves_all(bench):
    workflow = WorkflowSpec(
        (
            StepSpec("geo", Function(lambda x: {"g": 100}), "fake"),
            StepSpec("sim", Function(lambda x, p, g: {"s": p + g}), "fake", (Dependency("geo", parameter="g"),), True),
            StepSpec("ana", Function(lambda x, p, s: {"a": s * 2}), "fake", (Dependency("sim", parameter="s"),), True),
            StepSpec(
                "end",
                Function(lambda x, a: {"objective": sum(a.values())}),
                "fake",
                (Dependency("ana", mapping=DependencyMap.ALL2ONE, parameter="a"),),
            ),
        ),
        "end",
        {"p": (1, 2, 3)},
    )
    b = bench(workflow)

    b.engine.optimize(1)

    assert b.optimizer.told == {0: {"objective": (2 * (101 + 102 + 103), None)}}


def test_that_a_metric_the_parent_did_not_return_fails_the_parent_by_name(bench, fan_out):
    b = bench(fan_out, fate=lambda a: Fate(HasSucceeded({"w": 1})))

    b.engine.optimize(1)

    assert "step 'sim' returned no 'v'; it returned w" in b.optimizer.failed[0]
    assert b.engine.state.trials[0].jobs_in(JobState.COMPLETED) == []


class LinkingRunner(FakeRunner):
    """A backend whose jobs can be looked at somewhere, and whose results come from somewhere."""

    def poll(self, attempts):
        shown = {IsQueued: IsQueued("https://tasks/7"), IsRunning: IsRunning("https://tasks/7")}
        seen = {label: shown.get(type(each), each) for label, each in super().poll(attempts).items()}
        return {
            label: HasSucceeded(each.result, "an earlier run") if isinstance(each, HasSucceeded) else each
            for label, each in seen.items()
        }


def test_that_links_of_jobs_under_way_and_sources_of_results_are_recorded_and_shown(bench, single):
    made = bench(single, fate=lambda attempt: Fate(call_it(attempt).outcome, queued_s=1.0, running_s=5.0))
    made.engine = Engine(
        single,
        made.optimizer,
        {"fake": LinkingRunner(made.runner._fate, clock=made.mailbox.monotonic, alarm=made.mailbox.at)},
        made.run,
        settings=EngineSettings(max_parallel_trials=1, report_every_s=0.0),
        world=World(made.mailbox, InlineLane),
    )
    links = []
    made.engine.on_progress = lambda summary: links.append(summary.links)

    made.engine.optimize(2)

    assert ("https://tasks/7",) in links
    assert [event.link for event in made.run.events if isinstance(event, Submitted)] == ["", "https://tasks/7"] * 2
    assert {record.source for trial in made.engine.state.trials.values() for record in trial.jobs.values()} == {
        "an earlier run"
    }


@pytest.mark.parametrize("runs_here", [True, False])
def test_that_the_write_ahead_mark_lasts_before_a_backend_gets_a_job_that_outlives_the_driver(bench, single, runs_here):
    made = bench(single)
    made.runner.runs_here = runs_here
    order = []
    submit, commit = made.runner.submit, made.run.commit
    made.runner.submit = lambda batch: order.append("submit") or submit(batch)
    made.run.commit = lambda: order.append("commit") or commit()

    made.engine.optimize(3)

    first = order.index("submit")
    assert ("commit" in order[:first]) is not runs_here
    assert order[-1] == "commit"
