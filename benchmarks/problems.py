"""What the benchmarks have in common: an Ax experiment that proposes Sobol points only, so that asking costs the same
all the time and nothing depends on results.
"""

from __future__ import annotations

import logging
import warnings


def sobol_client():
    """A fresh AxClient on two parameters."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from ax.adapter.registry import Generators
    from ax.generation_strategy.generation_node import GenerationNode
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.generation_strategy.generator_spec import GeneratorSpec
    from ax.service.ax_client import AxClient, ObjectiveProperties

    logging.getLogger("ax").setLevel(logging.ERROR)
    sobol = GenerationNode(name="Sobol", generator_specs=[GeneratorSpec(generator_enum=Generators.SOBOL)])
    strategy = GenerationStrategy(name="Sobol", nodes=[sobol])
    client = AxClient(generation_strategy=strategy, verbose_logging=False)
    client.create_experiment(
        name="benchmark",
        parameters=[
            {"name": name, "type": "range", "bounds": [0.0, 1.0], "value_type": "float"} for name in ("x", "y")
        ],
        objectives={"objective": ObjectiveProperties(minimize=True)},
    )
    return client


def objective(x, y):
    return {"objective": (x - 0.5) ** 2 + (y - 0.5) ** 2}
