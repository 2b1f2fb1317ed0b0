"""The same Ax for both sides: client, objectives and generation strategy."""

from __future__ import annotations

import logging

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from problems import Problem


def make_client(problem: Problem, seed: int) -> Client:
    """A client that minimizes f1 and f2 with Ax's defaults after a quasi-random beginning."""
    logging.getLogger("ax").setLevel(logging.ERROR)
    client = Client(random_seed=seed)
    client.configure_experiment(
        name="closure",
        parameters=[
            RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0)) for name in problem.parameters
        ],
    )
    constraints = [f"f1 <= {problem.reference[0]}", f"f2 <= {problem.reference[1]}"]
    if problem.constraint:
        constraints.append(f"{problem.constraint} >= 0")
    client.configure_optimization("-f1, -f2", outcome_constraints=constraints)
    client.configure_generation_strategy(
        initialization_budget=problem.initial,
        initialization_random_seed=seed,
        initialize_with_center=False,
    )
    return client
