"""The driver is killed at every single point where it touches the world, and resumed; nothing is lost or done twice."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler import Infeasible
from scheduler.core.events import TrialTold
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, IsQueued, IsRunning
from scheduler.core.specs import Dependency, DependencyKind, DependencyMap, Function, Output, StepSpec, WorkflowSpec
from scheduler.core.states import TrialState
from scheduler.engine import Engine, EngineSettings, World
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, InlineLane, MemoryRun, SimulatedMailbox
from scheduler.testing.fake_runner import call_it

TRIALS = 4


class CrashError(BaseException):
    """The end of the driver: nothing catches it."""


class Fuse:
    """Lets a number of touches pass and then crashes."""

    def __init__(self, touches):
        self.left = touches

    def touch(self):
        self.left -= 1
        if self.left < 0:
            raise CrashError


class FragileRun(MemoryRun):
    """A run on a disk that survives crashes: what was committed stays, what was not is gone."""

    def __init__(self):
        super().__init__()
        self.optimizer = None
        self.saved_at = 0
        self.fuse = None
        self._uncommitted = []

    def append(self, event, state, snapshot=None):
        self.fuse.touch()
        self._uncommitted.append((event, snapshot))

    def commit(self):
        self.fuse.touch()
        for event, snapshot in self._uncommitted:
            self.events.append(event)
            if snapshot is not None:
                self.optimizer, self.saved_at = snapshot, len(self.events)
        self._uncommitted.clear()
        self.fuse.touch()

    def crash(self):
        self._uncommitted.clear()


class RemoteBackend(FakeRunner):
    """A backend that lives on when the driver dies, and may die on the way in or out of any call."""

    fuse = None

    def submit(self, batch):
        self.fuse.touch()
        answer = super().submit(batch)
        self.fuse.touch()
        return answer

    def poll(self, attempts):
        self.fuse.touch()
        return super().poll(attempts)

    def find(self, labels):
        self.fuse.touch()
        return super().find(labels)


class FragileOptimizer(FakeOptimizer):
    fuse = None
    mailbox = None

    def ask(self, at_most):
        self.fuse.touch()
        proposal = super().ask(at_most)
        self.fuse.touch()
        return proposal

    def prepare(self):
        self.fuse.touch()
        made = super().prepare()
        self.fuse.touch()
        return made

    def adopt(self, candidate, origin):
        self.fuse.touch()
        super().adopt(candidate, origin)
        self.fuse.touch()

    def tell(self, index, metrics):
        self.fuse.touch()
        super().tell(index, metrics)
        self.fuse.touch()

    def tell_failed(self, index, reason, *, again=True):
        self.fuse.touch()
        super().tell_failed(index, reason, again=again)

    def _may_propose(self, index):
        return index < 2 or len(self.told) + len(self.failed) + len(self.infeasible) > 0

    def snapshot(self):
        self.mailbox._now += 0.4  # saving takes time, so that it is not done after every trial
        return copy.deepcopy(self)

    def __deepcopy__(self, memo):
        twin = FragileOptimizer()
        twin._candidates = list(self._candidates)
        twin.told, twin.failed, twin.infeasible = dict(self.told), dict(self.failed), dict(self.infeasible)
        return twin


class BusyLane(InlineLane):
    """A lane whose calls take four seconds each, until the driver dies."""

    def __init__(self, name, mailbox, fuse):
        super().__init__(name, mailbox)
        self._fuse, self._free_at = fuse, 0.0

    def call(self, work, then, otherwise):
        def carry_out():
            if self._fuse.left >= 0:
                InlineLane.call(self, work, then, otherwise)

        self._free_at = max(self._free_at, self._mailbox.monotonic()) + 4.0
        self._mailbox.at(self._free_at, carry_out)


MERGE = StepSpec(
    "end",
    Function(lambda x, v: {"objective": sum(v.values())}),
    "fake",
    (Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v"),),
)
SIM = StepSpec("sim", Function(lambda x, p: {"v": x + p}), "fake", fans_out=True)
WORKFLOW = WorkflowSpec((SIM, MERGE), "end", {"p": (1, 2)})
CHAINED = WorkflowSpec(
    (
        StepSpec(
            "make",
            Function(lambda x, p: None),
            "fake",
            fans_out=True,
            returns_result=False,
            output=Output("user.a.#job_id.#global_parameter_key", "f"),
        ),
        replace(SIM, dependencies=(Dependency("make", DependencyKind.DATASETS, is_chained=True),)),
        MERGE,
    ),
    "end",
    {"p": (1, 2)},
)
SPECULATIVE = WorkflowSpec(
    (
        StepSpec("slow", Function(lambda x, p: {"v": x + p}), "fake", fans_out=True, speculative=True),
        replace(MERGE, dependencies=(Dependency("slow", mapping=DependencyMap.ALL2ONE, parameter="v"),)),
    ),
    "end",
    {"p": (1, 2, 3, 4)},
)


def fate_of(seed):
    """Durations and failures that depend on the job only, so that every life of the driver meets the same world."""

    def fate(attempt):
        chance = random.Random(f"{seed} {attempt.label}")
        if "-make-" in attempt.label and chance.random() < 0.3:
            return Fate(HasFailed(Failure(Cause.LOST, "gone")), 0, chance.uniform(0, 5))
        if chance.random() < 0.1:
            text = str(Infeasible("too heavy", constraint="limit", value=3.0))
            return Fate(HasFailed(Failure(Cause.EXCEPTION, text)), 0, chance.uniform(0, 5))
        if chance.random() < 0.1:
            return Fate(HasFailed(Failure(Cause.EXCEPTION, "unlucky")), 0, chance.uniform(0, 5))
        hangs = "-slow-" in attempt.label and chance.random() < 0.3
        return Fate(call_it(attempt).outcome, chance.uniform(0, 5), chance.uniform(0, 20) + 500 * hangs)

    return fate


def live(run, backend, mailbox, fuse, workflow=WORKFLOW, *, is_busy=False):
    """One life of the driver; returns its engine and optimizer if it reached the end, None if it crashed."""

    def open_lane(name, mailbox):
        return BusyLane(name, mailbox, fuse) if is_busy and name == "optimizer" else InlineLane(name, mailbox)

    optimizer = copy.deepcopy(run.optimizer) if run.optimizer else FragileOptimizer()
    run.fuse = backend.fuse = optimizer.fuse = fuse
    optimizer.mailbox = mailbox
    engine = Engine(
        workflow,
        optimizer,
        {"fake": backend},
        run,
        settings=EngineSettings(max_parallel_trials=2, min_failed_trials=100),
        world=World(mailbox, open_lane),
    )
    try:
        optimizer.fuse = Fuse(10**9)  # bringing the optimizer up to date touches nothing but memory
        engine.resume(enumerate(run.events, start=1), saved_at=run.saved_at)
        optimizer.fuse = fuse
        engine.optimize(TRIALS - len(engine.state.trials))
        engine.run_until(lambda: not engine.state.live)
    except CrashError:
        run.crash()
        return None
    engine.state.check()
    return engine, optimizer


def open_backend(seed, mailbox):
    return RemoteBackend(fate_of(seed), capacity=3, clock=mailbox.monotonic, alarm=mailbox.at, chains=True)


def survive(seed, touches_per_life, workflow=WORKFLOW, *, is_busy=False):
    """Live, crash and resume until the run is complete; returns everything there is to look at."""
    run = FragileRun()
    mailbox = SimulatedMailbox()
    backend = open_backend(seed, mailbox)
    lives = 0
    for touches in touches_per_life:
        lives += 1
        mailbox_of_this_life = SimulatedMailbox(start=mailbox.now())
        mailbox_of_this_life._alarms, mailbox_of_this_life._serial = list(mailbox._alarms), mailbox._serial
        backend._clock, backend._alarm = mailbox_of_this_life.monotonic, mailbox_of_this_life.at
        end = live(run, backend, mailbox_of_this_life, Fuse(touches), workflow, is_busy=is_busy)
        mailbox = mailbox_of_this_life
        if end is not None:
            return run, backend, *end, lives
    raise AssertionError(f"the run was not complete after {lives} lives")


def check(run, backend, engine, optimizer):
    labels = [attempt.label for attempt in backend.submitted]
    assert len(labels) == len(set(labels)), "an attempt was submitted twice"
    slow = {label: backend._observe(entry) for label, entry in backend._entries.items() if "-slow-" in label}
    running = [label for label, seen in slow.items() if isinstance(seen, IsQueued | IsRunning)]
    assert running == [], "an attempt of which nobody wants to know goes on"
    assert len(engine.state.trials) == TRIALS
    told = [*optimizer.told, *optimizer.failed, *optimizer.infeasible]
    assert sorted(told) == sorted(engine.state.trials)
    for index, trial in engine.state.trials.items():
        assert (trial.state is TrialState.COMPLETED) == (index in optimizer.told)
        assert (trial.state is TrialState.INFEASIBLE) == (index in optimizer.infeasible)
    assert sum(isinstance(event, TrialTold) for event in run.events) == TRIALS


def touches_of_an_undisturbed_life(seed, workflow, *, is_busy=False):
    fuse = Fuse(10**9)
    run, mailbox = FragileRun(), SimulatedMailbox()
    backend = open_backend(seed, mailbox)
    assert live(run, backend, mailbox, fuse, workflow, is_busy=is_busy) is not None
    return 10**9 - fuse.left


@pytest.mark.parametrize("workflow", [WORKFLOW, CHAINED, SPECULATIVE], ids=["results", "chained", "speculative"])
@pytest.mark.parametrize("seed", range(3))
def test_that_a_crash_at_every_single_touch_of_the_world_loses_and_repeats_nothing(seed, workflow):
    count = touches_of_an_undisturbed_life(seed, workflow)

    for touches in range(count):
        run, backend, engine, optimizer, lives = survive(seed, [touches, 10**9], workflow)
        check(run, backend, engine, optimizer)
        assert lives <= 2


@pytest.mark.parametrize("seed", range(2))
def test_that_a_crash_while_the_optimizer_has_yet_to_take_a_trial_loses_and_repeats_nothing(seed):
    for touches in range(touches_of_an_undisturbed_life(seed, WORKFLOW, is_busy=True)):
        check(*survive(seed, [touches, 10**9], is_busy=True)[:4])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 60), max_size=30),
    st.sampled_from([WORKFLOW, CHAINED, SPECULATIVE]),
    st.booleans(),
)
@example(1595, [52, 60, 44], WORKFLOW, True)  # a state of the optimizer is saved that lacks a begun trial
def test_that_many_crashes_in_one_run_lose_and_repeat_nothing(seed, lives, workflow, is_busy):
    run, backend, engine, optimizer, _ = survive(seed, [*lives, 10**9], workflow, is_busy=is_busy)

    check(run, backend, engine, optimizer)


def test_that_a_resumed_run_ends_as_the_undisturbed_one():
    undisturbed = survive(5, [10**9])
    crashed = survive(5, [7, 31, 12, 55, 10**9])

    assert undisturbed[3].told == crashed[3].told
    assert undisturbed[3].failed == crashed[3].failed


def test_that_the_crashes_of_speculative_steps_meet_second_attempts():
    _, backend, *_ = survive(1, [10**9], SPECULATIVE)

    assert any(attempt.label.endswith(".twin") for attempt in backend.submitted)
