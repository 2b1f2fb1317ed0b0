"""Trials that begin with results of another run; the driver is killed at every point where it touches the world."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from tests.engine.test_crash_and_resume import CrashError, FragileOptimizer, FragileRun, Fuse, RemoteBackend

from scheduler.core.events import Submitting, Succeeded, TrialStarted, TrialTold
from scheduler.core.plan import JobId, step_points
from scheduler.core.specs import Dependency, DependencyKind, DependencyMap, Function, Output, StepSpec, WorkflowSpec
from scheduler.core.takeover import TakenTrial, downstream, missing_result, take
from scheduler.engine import Engine, EngineSettings, World
from scheduler.testing import Fate, InlineLane, MemoryRun, SimulatedMailbox
from scheduler.testing.fake_runner import call_it

MADE = "user.a.sim.#trial_id.#global_parameter_key.#job_id"
WRITTEN = "user.a.look.#trial_id.#job_id"
WORKFLOW = WorkflowSpec(
    (
        StepSpec("sim", Function(lambda x, p: {"v": x + p}), "fake", fans_out=True, output=Output(MADE, "f")),
        StepSpec(
            "look",
            Function(lambda x, v, files: {"w": sum(v.values())}),
            "fake",
            (Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v"),),
            inputs={"files": "user.a.other"},
            output=Output(WRITTEN, "g"),
        ),
        StepSpec(
            "end",
            Function(lambda x, w, seen: {"objective": w}),
            "fake",
            (Dependency("look", DependencyKind.RESULTS, parameter="w"),),
            inputs={"seen": WRITTEN},
        ),
    ),
    "end",
    {"p": (1, 2)},
)
TAKEN, TRIALS = 5, 7


def taken(workflow=WORKFLOW, *, kept=("sim",), shift=10):
    return [
        TakenTrial(
            index,
            {"x": float(index)},
            {
                JobId(index, step, point): {"v": 100.0 * index}
                for step in kept
                for point in step_points(workflow, workflow.step(step))
            },
            dict.fromkeys(kept, f"old_{index + shift}"),
            f"run old, trial {index + shift}",
        )
        for index in range(TAKEN)
    ]


def live(run, backend, mailbox, fuse):
    optimizer = copy.deepcopy(run.optimizer) if run.optimizer else FragileOptimizer()
    optimizer.mailbox = mailbox
    optimizer.fuse = Fuse(10**9)
    run.fuse = backend.fuse = fuse
    engine = Engine(
        WORKFLOW,
        optimizer,
        {"fake": backend},
        run,
        settings=EngineSettings(max_parallel_trials=2, min_failed_trials=100),
        world=World(mailbox, InlineLane),
    )
    try:
        engine.resume(enumerate(run.events, start=1), saved_at=run.saved_at)
        optimizer.fuse = fuse
        for trial in taken():
            if trial.index >= len(optimizer._candidates):
                optimizer.attach(trial.parameters)
        engine.take_over([trial for trial in taken() if trial.index not in engine.state.trials])
        engine.optimize(TRIALS - len(optimizer._candidates))
        engine.run_until(lambda: not engine.state.live)
    except CrashError:
        run.crash()
        return None
    engine.state.check()
    return engine, optimizer


def survive(*touches_per_life):
    run, mailbox = FragileRun(), SimulatedMailbox()
    backend = RemoteBackend(lambda attempt: Fate(call_it_with_files(attempt), 1, 3), capacity=3)
    for touches in touches_per_life:
        alarms, mailbox = mailbox._alarms, SimulatedMailbox(start=mailbox.now())
        mailbox._alarms = list(alarms)
        backend._clock, backend._alarm = mailbox.monotonic, mailbox.at
        fuse = Fuse(touches)
        end = live(run, backend, mailbox, fuse)
        if end is not None:
            return run, backend, *end, touches - fuse.left
    raise AssertionError("the run was not complete")


def call_it_with_files(attempt):
    arguments = {**attempt.arguments, **{name: [] for name in attempt.inputs}}
    return call_it(replace(attempt, arguments=arguments)).outcome


def check(run, backend, engine, optimizer):
    labels = [attempt.label for attempt in backend.submitted]
    assert len(labels) == len(set(labels)), "an attempt was submitted twice"
    assert {event.job.trial for event in run.events if isinstance(event, Submitting) and event.job.step == "sim"} == {
        5,
        6,
    }
    assert sorted(engine.state.trials) == sorted(optimizer.told) == list(range(TRIALS))
    assert all(optimizer.told[index]["objective"][0] == 200.0 * index for index in range(TAKEN))
    assert sum(isinstance(event, TrialTold) for event in run.events) == TRIALS
    assert sum(isinstance(event, TrialStarted) for event in run.events) == TRIALS


def test_that_kept_jobs_are_complete_at_once_and_the_optimizer_is_asked_when_it_knows_all_trials():
    run, backend, engine, optimizer, _ = survive(10**9)

    check(run, backend, engine, optimizer)
    first_new = next(
        n for n, event in enumerate(run.events) if isinstance(event, TrialStarted) and event.trial == TAKEN
    )
    assert {e.trial for e in run.events[:first_new] if isinstance(e, TrialTold)} == set(range(TAKEN))
    kept = [event for event in run.events if isinstance(event, Succeeded) and event.attempt == 0]
    assert {event.source for event in kept} == {f"run old, trial {index + 10}" for index in range(TAKEN)}
    assert len(kept) == 2 * TAKEN


def test_that_trials_begin_as_places_get_free():
    run, *_ = survive(10**9)

    under_way = most = 0
    for event in run.events:
        under_way += isinstance(event, TrialStarted)
        under_way -= isinstance(event, Succeeded) and event.job.step == "end"
        most = max(most, under_way)
    assert most == 2


def test_that_a_crash_at_every_single_touch_of_the_world_loses_and_repeats_nothing():
    *_, count = survive(10**9)

    for touches in range(count):
        *rest, _ = survive(touches, 10**9)
        check(*rest)


def test_that_two_crashes_lose_and_repeat_nothing():
    *_, count = survive(10**9)

    for touches in range(0, count, 5):
        *rest, _ = survive(touches, touches, 2 * touches, 10**9)
        check(*rest)


def reader(inputs, output=None, dependency="sim"):
    return StepSpec(
        "end",
        Function(lambda x, files: {"objective": x}),
        "fake",
        (Dependency(dependency, DependencyKind.DATASETS),),
        inputs={"files": inputs},
        output=output,
    )


def attempts_of_a_taken_trial(workflow, kept):
    mailbox = SimulatedMailbox()
    run, optimizer = MemoryRun(), FragileOptimizer()
    optimizer.fuse, optimizer.mailbox = Fuse(10**9), mailbox
    backend = RemoteBackend(
        lambda attempt: Fate(call_it_with_files(attempt)), clock=mailbox.monotonic, alarm=mailbox.at
    )
    backend.fuse = Fuse(10**9)
    engine = Engine(workflow, optimizer, {"fake": backend}, run, world=World(mailbox, InlineLane))
    optimizer.attach({"x": 0.0})
    engine.take_over([taken(workflow, kept=kept)[0]])
    engine.optimize(0)
    return {attempt.label.split("-")[2]: attempt for attempt in backend.submitted}


def test_that_kept_datasets_are_read_under_their_old_names_and_new_ones_are_written_under_new_names():
    attempts = attempts_of_a_taken_trial(WORKFLOW, kept=["sim"])

    assert attempts["look"].output.dataset == "user.a.look.trial_0.memory_0"
    assert attempts["look"].inputs == {"files": "user.a.other"}
    assert attempts["end"].inputs == {"seen": "user.a.look.trial_0.memory_0"}


def test_that_the_number_of_the_old_trial_is_in_the_names_of_kept_datasets():
    sim = StepSpec("sim", Function(lambda x: {}), "fake", output=Output("user.a.#trial_id.#job_id", "f"))
    workflow = WorkflowSpec((sim, reader("user.a.#trial_id.#job_id", Output("user.a.end.#trial_id", "g"))), "end")

    attempts = attempts_of_a_taken_trial(workflow, kept=["sim"])

    assert list(attempts) == ["end"]
    assert attempts["end"].inputs == {"files": "user.a.trial_10.old_10"}
    assert attempts["end"].output.dataset == "user.a.end.trial_0"


@pytest.fixture
def old_run(bench):
    made = bench(WORKFLOW, fate=lambda attempt: Fate(call_it_with_files(attempt)))
    made.engine.optimize(2)
    return made.engine.state


def test_that_steps_that_do_not_depend_on_the_changed_ones_are_kept():
    assert downstream(WORKFLOW, ["look"]) == {"look", "end"}
    assert downstream(WORKFLOW, ["sim"]) == {"sim", "look", "end"}


def test_that_a_result_without_what_the_new_steps_need_is_not_taken(old_run):
    other = WorkflowSpec(
        (
            WORKFLOW.step("sim"),
            StepSpec("end", print, "fake", (Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="width"),)),
        ),
        "end",
        {"p": (1, 2)},
    )

    assert missing_result(old_run, 0, WORKFLOW, ["sim"], frozenset()) is None
    assert "'width'" in missing_result(old_run, 0, other, ["sim"], frozenset())


def test_that_datasets_keep_their_first_names_in_a_second_re_analysis(old_run):
    old_run.trials[1].kept = {"sim": "first_7"}

    trial = take(old_run, 1, 0, WORKFLOW, ["sim", "look"], ("second", "exp-2"))

    assert trial.kept == {"sim": "first_7", "look": "second_1"}
    assert trial.source == "run exp-2, trial 1"
    assert all(job.trial == 0 for job in trial.results)
