from __future__ import annotations

import pytest

from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings, World
from scheduler.testing import FakeOptimizer, FakeRunner, InlineLane, MemoryRun, SimulatedMailbox


class Bench:
    """An engine on a simulated world, with everything a test wants to look at."""

    def __init__(self, workflow, *, optimizer=None, settings=None, run=None, fate=None, capacity=None):
        self.mailbox = SimulatedMailbox()
        self.optimizer = optimizer or FakeOptimizer()
        self.run = run or MemoryRun()
        options = {} if fate is None else {"fate": fate}
        self.runner = FakeRunner(capacity=capacity, clock=self.mailbox.monotonic, alarm=self.mailbox.at, **options)
        self.engine = Engine(
            workflow,
            self.optimizer,
            {"fake": self.runner},
            self.run,
            settings=settings or EngineSettings(),
            world=World(self.mailbox, InlineLane),
        )

    @property
    def kinds(self):
        return [type(event).__name__ for event in self.run.events]


@pytest.fixture
def bench():
    """Makes benches and checks the invariants of every one of them at the end."""
    made = []

    def make(workflow, **options):
        made.append(Bench(workflow, **options))
        return made[-1]

    yield make
    for each in made:
        each.engine.state.check()


def objective(x):
    return {"objective": x}


@pytest.fixture
def single():
    return WorkflowSpec((StepSpec("only", Function(objective), "fake"),), "only")


@pytest.fixture
def fan_out():
    """Four points of 'sim', merged by 'final'."""
    return WorkflowSpec(
        (
            StepSpec("sim", Function(lambda x, p, q: {"v": x + p + q}), "fake", fans_out=True),
            StepSpec(
                "final",
                Function(lambda x, v: {"objective": sum(v.values())}),
                "fake",
                dependencies=(Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v"),),
            ),
        ),
        "final",
        {"p": (1, 2), "q": (10, 20)},
    )
