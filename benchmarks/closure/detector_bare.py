"""As many designs as the detector study tells, told by a loop by hand, which asks for the Pareto set once.

Usage: detector_bare.py. Prints the most memory it had, as the kernel counts it.
"""

from __future__ import annotations

import resource

from detector_client import make_client

DESIGNS = 150

if __name__ == "__main__":
    client = make_client()
    for _ in range(DESIGNS):
        for index, design in client.get_next_trials(1).items():
            results = {
                "separation": design["radius"] * design["length"],
                "acceptance": 1 - abs(design["tilt"] - 0.4),
                "light": 1 / (1 + design["pressure"]),
                "overlap": design["gap"] - 1.0,
            }
            client.complete_trial(index, results)
    client.get_pareto_frontier()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
