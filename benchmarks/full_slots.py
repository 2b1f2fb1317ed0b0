"""40 Sobol trials, each 4 points of 0.5 to 1.5 s of sleep and a merge, on 8 slots: makespan against total work / 8."""

from __future__ import annotations

import random
import tempfile
import time

from problems import sobol_client

TRIALS, POINTS, SLOTS = 40, 4, 8


def duration(x, y, point):
    """Seconds of one job: random, but the same wherever it is computed."""
    return random.Random(f"{x} {y} {point}").uniform(0.5, 1.5)


def simulate(x, y, point):
    time.sleep(duration(x, y, point))
    return {"v": x + y}


def merge(x, y, v):
    return {"objective": sum(v.values())}


def total_work(scheduler) -> float:
    """Seconds that the jobs slept."""
    return sum(
        duration(trial.parameters["x"], trial.parameters["y"], point)
        for trial in scheduler.trials.values()
        for point in range(POINTS)
    )


if __name__ == "__main__":
    from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction

    function = MultiStepsFunction(
        {"simulate": {"func": simulate}, "merge": {"func": merge, "parent_result_parameter_name": "v"}},
        deps={"merge": {"parent": "simulate", "dep_map": "all2one"}},
        global_parameters={"point": list(range(POINTS))},
        global_parameters_steps=["simulate"],
    )
    with tempfile.TemporaryDirectory() as directory:
        config = {"progress": False, "job_output_dir": directory}
        with AxScheduler(sobol_client(), JobLibRunner(n_jobs=SLOTS), config) as scheduler:
            scheduler.set_objective_function(function)
            start = time.perf_counter()
            engine, _ = scheduler._ready()
            engine.optimize(TRIALS)
            makespan = time.perf_counter() - start
            bound = total_work(scheduler) / SLOTS
    print(f"makespan {makespan:.2f} s, total work / {SLOTS} slots {bound:.2f} s, ratio {makespan / bound:.3f}")
