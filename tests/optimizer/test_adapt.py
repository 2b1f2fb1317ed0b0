"""What can be adapted, and what the optimizer says about an experiment."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from scheduler.errors import ConfigurationError
from scheduler.optimizer import AxOptimizer, adapt


def test_that_a_client_of_either_kind_tells_its_names(make_client):
    client = make_client(minimized={"f": True, "g": False}, constraints=["h <= 3"])

    optimizer = adapt(client)

    assert optimizer.name == "round"
    assert optimizer.parameter_names == {"x", "y"}
    assert optimizer.objectives == {"f": True, "g": False}
    assert optimizer.required_metrics == {"f", "g", "h"}
    assert optimizer.client is client
    assert set(optimizer.experiment.metrics) == {"f", "g", "h"}


def test_that_an_experiment_without_a_name_has_a_default_one(make_optimizer):
    optimizer = make_optimizer()
    optimizer.experiment._name = None

    assert optimizer.name == "experiment"


def test_that_the_parts_of_a_weighted_sum_count_by_their_signs():
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client()
    client.configure_experiment(parameters=[RangeParameterConfig(name="x", bounds=(0, 1), parameter_type="float")])
    client.configure_optimization(objective="2*a - b")

    assert adapt(client).objectives == {"a": False, "b": True}


def test_that_an_optimization_config_in_the_old_style_is_understood(make_client):
    from ax.core.metric import Metric
    from ax.core.objective import MultiObjective, Objective
    from ax.core.optimization_config import MultiObjectiveOptimizationConfig

    client = make_client(minimized={"f": True, "g": False})
    experiment = adapt(client).experiment
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        experiment.optimization_config = MultiObjectiveOptimizationConfig(
            objective=MultiObjective(
                objectives=[
                    Objective(metric=Metric("g"), minimize=False),
                    Objective(metric=Metric("f"), minimize=True),
                ]
            )
        )

    assert adapt(client).objectives == {"g": False, "f": True}


def not_a_client():
    return None


def a_class():
    from ax.api.client import Client

    return Client


def an_unconfigured_ax_client():
    from ax.service.ax_client import AxClient

    return AxClient()


def an_unconfigured_client():
    from ax.api.client import Client

    return Client()


def a_client_without_objectives():
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client()
    client.configure_experiment(parameters=[RangeParameterConfig(name="x", bounds=(0, 1), parameter_type="float")])
    return client


def an_experiment():
    return a_client_without_objectives()._experiment


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (not_a_client, "not a NoneType"),
        (an_experiment, "not a Experiment"),
        (a_class, "not the class Client"),
        (an_unconfigured_ax_client, "AxClient has no experiment yet"),
        (an_unconfigured_client, "Client has no experiment yet"),
        (a_client_without_objectives, "Client has no objectives yet"),
    ],
)
def test_that_anything_but_a_configured_client_is_refused_with_what_to_pass(make, said):
    with pytest.raises(ConfigurationError, match="configure_optimization") as caught:
        adapt(make())

    assert said in str(caught.value)


def test_that_client_works_where_ax_client_no_longer_exists(monkeypatch):
    import ax.service.ax_client

    client = a_client_without_objectives()
    client.configure_optimization(objective="f")
    monkeypatch.delattr(ax.service.ax_client, "AxClient")

    assert isinstance(adapt(client), AxOptimizer)


def test_that_client_works_where_the_module_of_ax_client_cannot_be_imported():
    program = """
import sys
sys.modules["ax.service.ax_client"] = None
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from scheduler.optimizer import adapt, restore
client = Client()
client.configure_experiment(parameters=[RangeParameterConfig(name="x", bounds=(0, 1), parameter_type="float")])
client.configure_optimization(objective="f")
optimizer = adapt(client)
optimizer.ask(1)
print(restore(optimizer.snapshot()).candidate(0).parameters)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "{'x': 0.5}\n", done.stderr


def test_that_importing_and_refusing_loads_nothing_of_ax():
    program = """
import sys
from scheduler.optimizer import adapt
try:
    adapt(object())
except ValueError as error:
    print(error)
print(sorted({"ax", "torch", "pandas"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "not a object" in done.stdout
    assert done.stdout.endswith("[]\n")
