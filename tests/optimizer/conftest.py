"""Real Ax clients for the tests of the optimizer. Importing Ax takes some seconds, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scheduler.optimizer import AxOptimizer, adapt

CLIENTS = ("AxClient", "Client")


def pytest_collection_modifyitems(items):
    # What Ax and the packages below it warn of is not ours to mend.
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for module in ("ax", "botorch", "gpytorch", "linear_operator", "pandas", "torch"):
                item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}\..*"))


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_torch():
    # On a busy machine its threads wait for each other most of the time.
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Problem:
    """What to optimize, in words that both clients understand."""

    minimized: Mapping[str, bool] = field(default_factory=lambda: {"f": True})
    thresholds: Mapping[str, float] = field(default_factory=dict)
    constraints: Sequence[str] = ()
    seed: int | None = 7
    strategy: Any = None


def make_ax_client(problem: Problem):
    from ax.service.ax_client import AxClient, ObjectiveProperties

    client = AxClient(generation_strategy=problem.strategy, random_seed=problem.seed, verbose_logging=False)
    client.create_experiment(
        name="round",
        parameters=[{"name": name, "type": "range", "bounds": [0.0, 1.0]} for name in ("x", "y")],
        objectives={
            name: ObjectiveProperties(minimize=minimize, threshold=problem.thresholds.get(name))
            for name, minimize in problem.minimized.items()
        },
        outcome_constraints=list(problem.constraints),
    )
    return client


def make_api_client(problem: Problem):
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client(random_seed=problem.seed)
    client.configure_experiment(
        name="round",
        parameters=[RangeParameterConfig(name=name, bounds=(0.0, 1.0), parameter_type="float") for name in ("x", "y")],
    )
    thresholds = [
        f"{name} {'<=' if problem.minimized[name] else '>='} {value}" for name, value in problem.thresholds.items()
    ]
    client.configure_optimization(
        objective=", ".join(f"-{name}" if minimize else name for name, minimize in problem.minimized.items()),
        outcome_constraints=[*problem.constraints, *thresholds],
    )
    if problem.strategy is not None:
        client.set_generation_strategy(problem.strategy)
    return client


@pytest.fixture(params=CLIENTS)
def make_client(request) -> Callable[..., Any]:
    """Makes a client of either kind, given the fields of a Problem."""
    make = {"AxClient": make_ax_client, "Client": make_api_client}[request.param]
    return lambda **fields: make(Problem(**fields))


@pytest.fixture
def make_optimizer(make_client) -> Callable[..., AxOptimizer]:
    return lambda **fields: adapt(make_client(**fields))


@pytest.fixture
def make_ax_optimizer() -> Callable[..., AxOptimizer]:
    """Makes an optimizer of an AxClient."""
    return lambda **fields: adapt(make_ax_client(Problem(**fields)))


@pytest.fixture
def run() -> Callable[..., list[int]]:
    """Runs trials to their end, one by one, and returns their indices."""

    def run_trials(optimizer: AxOptimizer, count: int, measure=None) -> list[int]:
        measure = measure or (lambda x, y: {"f": ((x - 0.3) ** 2 + (y - 0.6) ** 2, None)})
        done = []
        for _ in range(count):
            (candidate,) = optimizer.ask(1).candidates
            optimizer.tell(candidate.index, measure(**candidate.parameters))
            done.append(candidate.index)
        return done

    return run_trials


@pytest.fixture
def sobol() -> Callable[..., Any]:
    """Makes a strategy of one Sobol step."""

    def make(count: int = -1, **options):
        from ax.adapter.registry import Generators
        from ax.generation_strategy.generation_strategy import GenerationStep, GenerationStrategy

        return GenerationStrategy(nodes=[GenerationStep(generator=Generators.SOBOL, num_trials=count, **options)])

    return make


@pytest.fixture
def breaking() -> Callable[..., Any]:
    """Makes a strategy of one node whose generator raises at one call."""

    def make(at_call: int, error: type[Exception] = ArithmeticError):
        from ax.generation_strategy.external_generation_node import ExternalGenerationNode
        from ax.generation_strategy.generation_strategy import GenerationStrategy

        class Breaking(ExternalGenerationNode):
            calls = 0

            def update_generator_state(self, experiment, data):
                pass

            def get_next_candidate(self, pending_parameters):
                self.calls += 1
                if self.calls == at_call:
                    raise error("the generator broke")
                return {"x": 0.1 * self.calls, "y": 0.5}

        return GenerationStrategy(nodes=[Breaking(name="Breaking")])

    return make
