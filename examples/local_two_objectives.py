"""Two objectives that pull in opposite directions: the answer is a set of designs, none better in everything."""

from ax.service.ax_client import AxClient, ObjectiveProperties

from scheduler import AxScheduler, JobLibRunner


def evaluate_detector(radius, thickness):
    """A toy: the resolution is best at (1, 1) and the cost is lowest at (0, 0)."""
    return {
        "resolution": (radius - 1.0) ** 2 + (thickness - 1.0) ** 2,
        "cost": radius**2 + thickness**2,
    }


if __name__ == "__main__":
    ax_client = AxClient()
    ax_client.create_experiment(
        name="two_objectives",
        parameters=[
            {"name": "radius", "type": "range", "bounds": [0.0, 1.0], "value_type": "float"},
            {"name": "thickness", "type": "range", "bounds": [0.0, 1.0], "value_type": "float"},
        ],
        objectives={
            # a threshold is the worst value that is still of interest
            "resolution": ObjectiveProperties(minimize=True, threshold=2.0),
            "cost": ObjectiveProperties(minimize=True, threshold=2.0),
        },
    )

    scheduler = AxScheduler(ax_client, JobLibRunner(n_jobs=-1))
    scheduler.set_objective_function(evaluate_detector)
    pareto_set = scheduler.run_optimization(max_trials=12)

    for index, (parameters, (means, _covariances)) in sorted(pareto_set.items()):
        print(f"Pareto trial {index}: {parameters} -> {means}")
