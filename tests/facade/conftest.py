"""Programs in miniature: AxScheduler with real Ax clients on Sobol points, and local threads as workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler import AxScheduler, JobLibRunner


def pytest_collection_modifyitems(items):
    # What Ax and the packages below it warn of is not ours to mend.
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for module in ("ax", "botorch", "gpytorch", "linear_operator", "pandas", "torch"):
                item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}\..*"))


def make_client(name="exp", upper=1.0, objective="objective"):
    from ax.adapter.registry import Generators
    from ax.generation_strategy.generation_node import GenerationNode
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.generation_strategy.generator_spec import GeneratorSpec
    from ax.service.ax_client import AxClient, ObjectiveProperties

    sobol = GenerationNode(
        name="Sobol", generator_specs=[GeneratorSpec(generator_enum=Generators.SOBOL, generator_kwargs={"seed": 3})]
    )
    client = AxClient(generation_strategy=GenerationStrategy(name="Sobol", nodes=[sobol]), verbose_logging=False)
    client.create_experiment(
        name=name,
        parameters=[{"name": n, "type": "range", "bounds": [0.0, upper], "value_type": "float"} for n in ("x", "y")],
        objectives={objective: ObjectiveProperties(minimize=True)},
    )
    return client


def objective(x, y):
    return {"objective": (x - 0.5) ** 2 + (y - 0.5) ** 2}


@pytest.fixture
def program(tmp_path):
    """Makes schedulers as a program would, one life after the other; closes them at the end."""
    lives = []

    def start(function=objective, client=None, **config):
        if lives:
            lives[-1].close()
        options = {"progress": False, "job_output_dir": str(tmp_path / "runs"), **config}
        scheduler = AxScheduler(client or make_client(), JobLibRunner(n_jobs=2, backend="threading"), options)
        scheduler.set_objective_function(function)
        lives.append(scheduler)
        return scheduler

    yield start
    for scheduler in lives:
        scheduler.close()
