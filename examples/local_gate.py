"""A gate: designs that break a constraint are found out by a cheap first step, and the expensive one is not run."""

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

from scheduler import AxScheduler, Infeasible, JobLibRunner, MultiStepsFunction


def check_geometry(radius, thickness):
    overlap = thickness - 0.8 * radius
    if overlap > 0:
        raise Infeasible("the layers overlap", constraint="overlap", value=overlap)
    return {"overlap": overlap}


def simulate(radius, thickness, overlap):
    return {"resolution": (radius - 1.2) ** 2 + (thickness - 1.0) ** 2, "overlap": overlap}


if __name__ == "__main__":
    client = Client(random_seed=1)
    client.configure_experiment(
        name="gate",
        parameters=[
            RangeParameterConfig(name="radius", parameter_type="float", bounds=(0.5, 2.0)),
            RangeParameterConfig(name="thickness", parameter_type="float", bounds=(0.5, 2.0)),
        ],
    )
    client.configure_optimization("-resolution", outcome_constraints=["overlap <= 0"])
    scheduler = AxScheduler(client, JobLibRunner(n_jobs=2))
    scheduler.set_objective_function(
        MultiStepsFunction(
            {
                "geometry": {"func": check_geometry},
                "simulation": {"func": simulate, "parent_result_parameter_name": "overlap"},
            },
            deps={"simulation": "geometry"},
        )
    )
    print("Best parameters:", scheduler.run_optimization(max_trials=12))
    states = [str(trial.state) for trial in scheduler.trials.values()]
    print("Trials:", {state: states.count(state) for state in sorted(set(states))})
