"""The bare loop: ask Ax for a batch of 4, evaluate, tell everything. Writes what came of it as JSON.

Usage: bare.py PROBLEM SEED BATCHES OUTPUT
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from ax_setup import make_client
from problems import PARTS, PROBLEMS, merge, part


def main(name: str, seed: int, most: int, output: Path) -> None:
    problem, dice = PROBLEMS[name], random.Random(seed)
    client, start, rows = make_client(problem, seed), time.time(), []
    goal = 0.9 * problem.best if name == "dtlz2" else float("inf")
    while len(rows) < most and problem.volume([row["true"] for row in rows]) < goal:
        wanted = problem.initial if not rows else 4
        for index, design in client.get_next_trials(max_trials=wanted).items():
            true = merge(name, design, [part(name, design, number) for number in PARTS])
            if problem.noise:
                told = {f: (true[f] + dice.gauss(0, s), s) for f, s in zip(("f1", "f2"), problem.noise, strict=True)}
            else:
                told = true
            client.complete_trial(index, raw_data=told)
            rows.append({"true": true, "at": time.time() - start})
    output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
