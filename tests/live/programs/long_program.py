"""Four trials of a job that takes a while, on the grid: to be killed and resumed."""

import logging

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from slow_step import objective

from scheduler import AxScheduler, PanDAiDDSRunner

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    client = Client(random_seed=1)
    client.configure_experiment(
        [RangeParameterConfig(name="x", parameter_type="float", bounds=(0.0, 1.0))], name="long"
    )
    client.configure_optimization("-objective")
    runner = PanDAiDDSRunner(name="user.alice.long", service="panda")
    scheduler = AxScheduler(client, runner, {"run_dir": "run", "max_parallel_trials": 2, "progress": False})
    scheduler.set_objective_function(objective)
    scheduler.run_optimization(max_trials=4)
