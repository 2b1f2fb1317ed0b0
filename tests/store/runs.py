"""Runs on disk, made by a real engine on a simulated world: fast, and with everything that a run can have."""

from __future__ import annotations

from types import SimpleNamespace

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed
from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings, World
from scheduler.identity import identity_of
from scheduler.run_directory import RunDirectory
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, InlineLane, SimulatedMailbox
from scheduler.testing.fake_runner import call_it

WORKFLOW = WorkflowSpec(
    (
        StepSpec("sim", Function(lambda x, p: {"v": x + p}), "fake", fans_out=True),
        StepSpec(
            "end",
            Function(lambda x, v: {"objective": sum(v.values()), "note": "fine"}),
            "fake",
            (Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v"),),
        ),
    ),
    "end",
    {"p": (1, 2)},
)


class FakeAxOptimizer(FakeOptimizer):
    """A fake optimizer with the little of an Ax experiment that the identity of a run shows."""

    experiment = SimpleNamespace(search_space=SimpleNamespace(parameters={"x": "x: [0, 9]"}, parameter_constraints=[]))


def fate(attempt):
    """Trial 1 fails in its second point, trial 2 loses its first attempt; the others are well."""
    if "-1-sim-p_2" in attempt.label:
        return Fate(HasFailed(Failure(Cause.EXCEPTION, "ValueError: no beam", str(attempt.directory / "log.txt"))))
    if "-2-sim-p_1" in attempt.label and "retry" not in attempt.label:
        return Fate(HasFailed(Failure(Cause.LOST, "the worker vanished")))
    return Fate(call_it(attempt).outcome, running_s=10.0)


def make_run(path, *, trials=4, workflow=WORKFLOW):
    """A finished run in this directory; returns the run, still open, and its engine."""
    optimizer = FakeAxOptimizer()
    run = RunDirectory.create("exp", path.parent, path, about={"identity": identity_of(workflow, optimizer)})
    mailbox = SimulatedMailbox()
    runner = FakeRunner(fate, clock=mailbox.monotonic, alarm=mailbox.at)
    engine = Engine(
        workflow,
        optimizer,
        {"fake": runner},
        run,
        settings=EngineSettings(max_parallel_trials=2, min_failed_trials=1000),
        world=World(mailbox, InlineLane),
    )
    engine.optimize(trials)
    engine.run_until(lambda: not engine.state.live)
    return run, engine
