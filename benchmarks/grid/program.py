"""The driver of the benchmark: so many trials of a trivial job on the grid, all at once, proposed quasi-randomly."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from ax.adapter.registry import Generators
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.service.ax_client import AxClient, ObjectiveProperties
from objective import objective

from scheduler import AxScheduler, PanDAiDDSRunner


def sobol_only():
    return GenerationStrategy(nodes=[GenerationNode("Sobol", generator_specs=[GeneratorSpec(Generators.SOBOL)])])


if __name__ == "__main__":
    jobs = int(sys.argv[1])
    logging.getLogger("ax").setLevel(logging.WARNING)
    client = AxClient(generation_strategy=sobol_only(), verbose_logging=False)
    client.create_experiment(
        name="grid",
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 1.0], "value_type": "float"}],
        objectives={"objective": ObjectiveProperties(minimize=True)},
    )
    runner = PanDAiDDSRunner(name="user.alice.bench", service="panda", source_dir=str(Path(__file__).parent))
    scheduler = AxScheduler(client, runner, {"run_dir": "run", "max_parallel_trials": jobs, "progress": False})
    scheduler.set_objective_function(objective)
    before = time.process_time()
    scheduler.run_optimization(max_trials=jobs)
    Path("cost.json").write_text(json.dumps({"cpu_s": time.process_time() - before}))
