"""What the benchmarks have in common: Sobol points only, so that asking costs the same all the time and nothing depends
on results; and a fake optimizer that costs nothing itself.
"""

from __future__ import annotations

import logging
import warnings

from scheduler.optimizer import Standing
from scheduler.testing import FakeOptimizer

_SEED = 3


class QuietOptimizer(FakeOptimizer):
    """One that does not search its results, which would cost the square of the trials."""

    def standing(self) -> Standing:
        return Standing("counting", "")


def sobol_strategy(skipped: int = 0):
    """A strategy that always proposes the same Sobol points, after the first few of them."""
    from ax.adapter.registry import Generators
    from ax.generation_strategy.generation_node import GenerationNode
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.generation_strategy.generator_spec import GeneratorSpec

    places = {"seed": _SEED, "init_position": skipped}
    spec = GeneratorSpec(generator_enum=Generators.SOBOL, generator_kwargs=places)
    return GenerationStrategy(name="Sobol", nodes=[GenerationNode(name="Sobol", generator_specs=[spec])])


def sobol_points(count: int, *, skipped: int = 0) -> list[tuple[float, float]]:
    """The points that this strategy proposes on two parameters between 0 and 1, without asking for each."""
    from ax.core.search_space import SearchSpaceDigest
    from ax.generators.random.sobol import SobolGenerator

    square = SearchSpaceDigest(feature_names=["x", "y"], bounds=[(0.0, 1.0), (0.0, 1.0)])
    generator = SobolGenerator(seed=_SEED, init_position=skipped)
    points, _ = generator.gen(count, square, rounding_func=lambda point: point)
    return [(float(x), float(y)) for x, y in points]


def sobol_client(skipped: int = 0):
    """A fresh AxClient on two parameters."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from ax.service.ax_client import AxClient, ObjectiveProperties

    logging.getLogger("ax").setLevel(logging.ERROR)
    client = AxClient(generation_strategy=sobol_strategy(skipped), verbose_logging=False)
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
