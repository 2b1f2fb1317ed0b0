"""One candidate is made while no place is free, and takes the next free place at once, whatever the optimizer does."""

from __future__ import annotations

import itertools
import threading

import pytest

from scheduler.core.events import TrialStarted, TrialTold
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed
from scheduler.core.states import TrialState
from scheduler.engine import Engine, EngineSettings, World
from scheduler.errors import GenerationError, TooManyFailuresError
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, InlineLane, MemoryRun, SimulatedMailbox
from scheduler.testing.fake_runner import call_it


class PatientLane(InlineLane):
    """A lane whose calls take a while of simulated time, one after the other."""

    def __init__(self, name, mailbox, seconds):
        super().__init__(name, mailbox)
        self._seconds, self._free_at = seconds, 0.0

    def call(self, work, then, otherwise):
        self._free_at = max(self._free_at, self._mailbox.monotonic()) + self._seconds
        self._mailbox.at(self._free_at, lambda: InlineLane.call(self, work, then, otherwise))


class Recorder(FakeOptimizer):
    """Notes the calls in the order in which they were carried out."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = []

    def ask(self, at_most):
        self.calls.append("ask")
        return super().ask(at_most)

    def prepare(self):
        self.calls.append("prepare")
        return super().prepare()

    def adopt(self, candidate, origin):
        self.calls.append(f"adopt {candidate.index}")
        super().adopt(candidate, origin)

    def tell(self, index, metrics):
        self.calls.append(f"tell {index}")
        super().tell(index, metrics)


class Stage:
    """An engine whose optimizer is slow, and whose jobs take ten seconds."""

    def __init__(self, workflow, *, thinks_s=0.0, optimizer=None, fate=None, **settings):
        self.mailbox, self.run, self.optimizer = SimulatedMailbox(), MemoryRun(), optimizer or Recorder()
        runner = FakeRunner(
            fate or (lambda attempt: Fate(call_it(attempt).outcome, running_s=10.0)),
            clock=self.mailbox.monotonic,
            alarm=self.mailbox.at,
        )

        def open_lane(name, mailbox):
            return PatientLane(name, mailbox, thinks_s) if name == "optimizer" else InlineLane(name, mailbox)

        self.engine = Engine(
            workflow,
            self.optimizer,
            {"fake": runner},
            self.run,
            settings=EngineSettings(**{"max_parallel_trials": 2, **settings}),
            world=World(self.mailbox, open_lane),
        )

    def times(self, kind):
        return [event.at - 1_000_000 for event in self.run.events if isinstance(event, kind)]


def idle_s(stage):
    """Seconds that places were empty while trials were still wanted, two places."""
    end = max(stage.times(TrialStarted))
    return 2 * end - sum(min(10.0, end - at) for at in stage.times(TrialStarted))


def test_that_a_free_place_does_not_wait_for_the_optimizer(single):
    slow, ahead = Stage(single, thinks_s=1.0, ask_ahead=False), Stage(single, thinks_s=1.0)
    for stage in (slow, ahead):
        stage.engine.optimize(8)
        stage.engine.state.check()
    assert sorted(ahead.optimizer.told) == sorted(slow.optimizer.told) == list(range(8))
    assert idle_s(ahead) < 0.5 * idle_s(slow)


def test_that_it_starts_while_the_optimizer_is_busy_and_the_optimizer_takes_it_afterwards(single):
    stage = Stage(single, thinks_s=3.0)

    stage.engine.optimize(4)

    calls = stage.optimizer.calls
    assert calls.index("adopt 2") < calls.index("tell 0"), "the third trial began before the first was told"
    started = dict(
        zip(
            (event.trial for event in stage.run.events if isinstance(event, TrialStarted)),
            stage.times(TrialStarted),
            strict=True,
        )
    )
    first_told = stage.times(TrialTold)[0]
    assert started[2] < first_told
    assert sorted(stage.optimizer.told) == [0, 1, 2, 3]


def test_that_with_one_place_each_candidate_knows_the_result_before(single):
    stage = Stage(single, max_parallel_trials=1)
    stage.engine.optimize(3)
    assert stage.optimizer.calls == ["ask", "tell 0", "ask", "tell 1", "ask", "tell 2"]


@pytest.mark.parametrize("trials", [1, 2])
def test_that_nothing_is_made_ahead_that_is_not_wanted(single, trials):
    stage = Stage(single)
    stage.engine.optimize(trials)
    assert "prepare" not in stage.optimizer.calls


def test_that_it_can_be_switched_off(single):
    stage = Stage(single, ask_ahead=False)
    stage.engine.optimize(5)
    assert "prepare" not in stage.optimizer.calls


def test_that_a_candidate_is_dropped_when_too_many_results_are_newer(single):
    """Three trials end at once; the candidate made before knows none of them."""
    keeping, strict = (
        Stage(single, max_parallel_trials=3, stale_after=3),
        Stage(single, max_parallel_trials=3, stale_after=2),
    )
    for stage in (keeping, strict):
        stage.engine.optimize(4)
        assert sorted(stage.optimizer.told) == [0, 1, 2, 3]
    assert keeping.optimizer.calls.count("ask") == 3
    assert strict.optimizer.calls.count("ask") == 4, "dropped, and asked for anew with all three results"


def test_that_what_cannot_go_stale_is_never_dropped(single):
    class Random(Recorder):
        def prepare(self):
            made = super().prepare()
            return type(made)(made.parameters, made.origin, goes_stale=False)

    stage = Stage(single, max_parallel_trials=3, stale_after=0, optimizer=Random())
    stage.engine.optimize(4)
    assert stage.optimizer.calls.count("ask") == 3


def test_that_a_strategy_that_wants_results_first_is_asked_again_after_the_next_one_only(single):
    stage = Stage(single, optimizer=Recorder(initial=2, parallel=2))
    stage.engine.optimize(4)
    assert sorted(stage.optimizer.told) == [0, 1, 2, 3]
    assert stage.optimizer.calls.count("prepare") <= 2


def test_that_a_failure_to_prepare_matters_only_when_the_candidate_is_needed(single):
    class Hesitant(Recorder):
        def prepare(self):
            super().prepare()
            raise GenerationError("the fit failed")

    stage = Stage(single, optimizer=Hesitant())
    stage.engine.optimize(5)
    assert sorted(stage.optimizer.told) == list(range(5))


def test_that_an_optimizer_that_fails_for_good_is_an_error_after_the_running_trials(single):
    stage = Stage(single, optimizer=Recorder(fails_at=3))
    with pytest.raises(GenerationError, match="no candidate for trial 3"):
        stage.engine.optimize(6)
    assert sorted(stage.optimizer.told) == [0, 1, 2]


def test_that_a_trial_attached_meanwhile_does_not_take_its_number(single):
    stage = Stage(single, thinks_s=3.0)
    stage.mailbox.at(stage.mailbox.now() + 9.5, lambda: attach(stage))
    stage.engine.optimize(5)
    indices = [event.trial for event in stage.run.events if isinstance(event, TrialStarted)]
    assert sorted(indices) == indices
    assert len(set(indices)) == len(indices) == 5
    assert stage.attached not in indices


def test_that_nothing_is_asked_while_a_candidate_waits_for_its_number(single):
    """Another candidate would be generated without it as a pending one: of a quasi-random sequence, the same again."""

    def fate(attempt):
        return Fate(call_it(attempt).outcome, running_s=40.0 if attempt.arguments["x"] == 1.0 else 10.0)

    stage = Stage(single, thinks_s=3.0, fate=fate)
    for at_s in (12.0, 14.0):  # one before the first result, one after it
        stage.mailbox.at(stage.mailbox.now() + at_s, lambda: attach(stage))
    stage.engine.optimize(3)
    assert stage.optimizer.calls[:5] == ["ask", "ask", "prepare", "tell 0", "adopt 4"], "2 and 3 are attached"


@pytest.mark.parametrize("at_s", [2.5, 4.5], ids=["while it is made", "when it is there"])
def test_that_a_candidate_made_ahead_is_forgotten_when_no_more_are_wanted(single, at_s):
    """Until more are wanted, the program may make trials of its own without the engine: the number is theirs."""
    stage = Stage(single, thinks_s=1.0)
    stage.mailbox.at(stage.mailbox.now() + at_s, stage.engine.finish)
    stage.engine.optimize(5)
    assert "prepare" in stage.optimizer.calls
    theirs = stage.optimizer.attach({"x": 99.0})

    stage.engine.optimize(2)

    assert theirs.index not in stage.engine.state.trials
    assert sorted(stage.optimizer.told) == [0, 1, 3, 4]


def attach(stage):
    """As a program does that calls get_next_trial from another place: through the optimizer's lane."""
    stage.engine._advisor.consult(
        lambda: stage.optimizer.attach({"x": 99.0}).index, lambda index: setattr(stage, "attached", index), print
    )


def test_that_no_snapshot_is_kept_that_lacks_a_trial_begun_before(single):
    stage = Stage(single, thinks_s=3.0)
    saved = []
    stage.optimizer.snapshot = lambda: str(len(stage.optimizer._candidates))
    append = stage.run.append

    def check(event, state, snapshot=None):
        if snapshot is not None:
            begun = sum(isinstance(each, TrialStarted) for each in [*stage.run.events, event])
            saved.append((int(snapshot), begun))
        append(event, state, snapshot)

    stage.run.append = check
    stage.engine.optimize(6)
    assert saved
    assert all(has == begun for has, begun in saved)


def test_that_completions_commits_cancelling_and_progress_go_on_while_a_model_is_fitted(single):
    """With real threads: the fit ends only after all of that has happened, one thing leading to the next."""
    is_fitting, may_end = threading.Event(), threading.Event()

    class Fitting(FakeOptimizer):
        was_in_time = True

        def prepare(self):
            is_fitting.set()
            self.was_in_time &= may_end.wait(30)
            return super().prepare()

    class WatchedRun(MemoryRun):
        def commit(self):
            super().commit()
            if engine.state.trials[0].state is TrialState.COMPLETED and not may_end.is_set():
                engine.cancel_trial(1)

    def note(summary):
        if (summary.completed, summary.failed) == (1, 1) and summary.activity:
            may_end.set()

    def fate(attempt):
        return Fate(call_it(attempt).outcome, running_s={0.0: 1, 1.0: 10**9}.get(attempt.arguments["x"], 0))

    ticks = itertools.count()  # time passes at every look at the jobs, from the fit on
    optimizer, runner = Fitting(), FakeRunner(fate, clock=lambda: float(next(ticks) if is_fitting.is_set() else 0))
    settings = EngineSettings(max_parallel_trials=2, poll_min_s=0.01, poll_max_s=0.01)
    engine = Engine(single, optimizer, {"fake": runner}, WatchedRun(), settings=settings)
    engine.on_progress = note

    engine.optimize(4)
    engine.close()

    assert optimizer.was_in_time
    assert sorted(optimizer.told) == [0, 2, 3]
    assert sorted(optimizer.failed) == [1]


def test_that_the_optimizer_is_left_alone_when_the_run_gives_up(single):
    def fate(attempt):
        return Fate(HasFailed(Failure(Cause.EXCEPTION, "boom")), running_s=10.0)

    stage = Stage(single, thinks_s=8.0, max_parallel_trials=2, fate=fate, failure_rate=0.0, min_failed_trials=1)
    with pytest.raises(TooManyFailuresError):
        stage.engine.optimize(9)
    calls = list(stage.optimizer.calls)

    for _ in range(5):
        for news in stage.mailbox.take(50.0):
            news()

    assert "prepare" in calls
    assert stage.optimizer.calls == calls


def test_that_failed_trials_make_nothing_stale(single):
    def fate(attempt):
        return Fate(HasFailed(Failure(Cause.EXCEPTION, "boom")), running_s=10.0)

    stage = Stage(single, max_parallel_trials=3, stale_after=0, fate=fate, min_failed_trials=99)
    stage.engine.optimize(4)
    assert stage.optimizer.calls.count("ask") == 3
