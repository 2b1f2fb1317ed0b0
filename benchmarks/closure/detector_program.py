"""The shape of a detector study, a thousand times faster than a real one.

Six parameters, three maximised objectives with thresholds, a gate, simulations at 4 points for 2 particles, an analysis
of each point, one merge.

Usage: detector_program.py RUN_DIRECTORY. Prints the most memory it had, as the kernel counts it.
"""

from __future__ import annotations

import math
import resource
import sys
import time

from detector_client import NAMES, make_client

from scheduler import AxScheduler, Infeasible, JobLibRunner, MultiStepsFunction

POINTS = (0.1, 0.3, 0.5, 0.7)
PARTICLES = ("kaon", "pi")


def check_geometry(parameterization):
    overlap = parameterization["gap"] - 0.95 * parameterization["radius"] - 0.2
    if overlap > 0:
        raise Infeasible("the mirrors overlap", constraint="overlap", value=overlap)
    return {"overlap": overlap}


def simulate(parameterization):
    time.sleep(0.03)
    phase = parameterization["eta"] + (0.2 if parameterization["particle"] == "pi" else 0.0)
    value = sum(math.sin(3 * parameterization[name] + k * phase) for k, name in enumerate(NAMES))
    return {"photons": 20 + value}


def analyse(parameterization, *, eta):
    time.sleep(0.01)
    photons = parameterization["photons"]
    pair = [photons[(("eta", eta), ("particle", particle))] for particle in PARTICLES]
    return {f"separation_{POINTS.index(eta)}": abs(pair[0] - pair[1]) * math.sqrt(sum(pair))}


def merge(parameterization):
    separations = [parameterization[f"separation_{k}"] for k in range(len(POINTS))]
    return {
        "separation": min(separations),
        "acceptance": 1 - abs(parameterization["tilt"] - 0.4),
        "light": 1 / (1 + parameterization["pressure"]),
        "overlap": parameterization["overlap"],
    }


def analysis_of(eta):
    def analysis(parameterization):
        return analyse(parameterization, eta=eta)

    return analysis


if __name__ == "__main__":
    client = make_client()
    analyses = {
        f"analysis_{k}": {"func": analysis_of(eta), "parent_result_parameter_name": "photons"}
        for k, eta in enumerate(POINTS)
    }
    deps = {
        "simulation": "gate",
        **{name: {"parent": "simulation", "dep_map": "all2one"} for name in analyses},
        "merge": [
            {"parent": "gate", "parameter": "overlap"},
            *({"parent": name, "parameter": f"separation_{k}"} for k, name in enumerate(analyses)),
        ],
    }
    scheduler = AxScheduler(client, JobLibRunner(n_jobs=8), {"run_dir": sys.argv[1], "progress": False})
    scheduler.set_objective_function(
        MultiStepsFunction(
            {"gate": {"func": check_geometry}, "simulation": {"func": simulate}, **analyses, "merge": {"func": merge}},
            deps=deps,
            global_parameters={"eta": list(POINTS), "particle": list(PARTICLES)},
            global_parameters_steps=["simulation"],
        )
    )
    trials = 0
    while (feasible := sum(str(each.state) == "completed" for each in scheduler.trials.values())) < 100:
        trials += 100 - feasible
        scheduler.run_optimization(max_trials=trials)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
