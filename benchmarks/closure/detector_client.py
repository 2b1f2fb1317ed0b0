"""The client of the detector study, the same for the scheduler and for a loop by hand."""

from __future__ import annotations

import logging

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

NAMES = ("radius", "length", "pressure", "tilt", "gap", "index")


def make_client() -> Client:
    """Six parameters, three maximised objectives with thresholds, a constraint, and quasi-random designs only.

    What is measured is the plumbing, so no model shall be fitted for a design.
    """
    logging.getLogger("ax").setLevel(logging.ERROR)
    client = Client(random_seed=11)
    client.configure_experiment(
        [RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0)) for name in NAMES], name="detector"
    )
    client.configure_optimization(
        "separation, acceptance, light",
        outcome_constraints=["separation >= 0", "acceptance >= 0.2", "light >= 0.3", "overlap <= 0"],
    )
    client.configure_generation_strategy(initialization_budget=1000, initialize_with_center=False)
    return client
