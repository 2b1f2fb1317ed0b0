"""One objective, evaluated on the cores of this machine, with Ax's newer interface `ax.api.client.Client`."""

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

from scheduler import AxScheduler, JobLibRunner


def photon_yield_loss(radius, pressure):
    """A toy: the best design is radius 0.5 m at pressure 1.5 bar."""
    return {"loss": (radius - 0.5) ** 2 + (pressure - 1.5) ** 2}


if __name__ == "__main__":
    client = Client()
    client.configure_experiment(
        name="one_objective",
        parameters=[
            RangeParameterConfig(name="radius", parameter_type="float", bounds=(0.0, 1.0)),
            RangeParameterConfig(name="pressure", parameter_type="float", bounds=(1.0, 2.0)),
        ],
    )
    client.configure_optimization(objective="-loss")  # the minus sign asks for the smallest loss

    scheduler = AxScheduler(client, JobLibRunner(n_jobs=-1))
    scheduler.set_objective_function(photon_yield_loss)
    best_params = scheduler.run_optimization(max_trials=10)
    print("Best parameters:", best_params)
