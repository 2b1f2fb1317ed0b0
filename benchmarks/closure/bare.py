"""The bare loop: ask Ax for a batch of 4, evaluate, tell. Writes what came of it as JSON.

An infeasible design is told as ours tells it, with its constraint alone, by the same adapter of Ax's client; what
differs is the engine between asking and telling.

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

from scheduler.optimizer import adapt


def main(name: str, seed: int, most: int, output: Path) -> None:
    problem, dice = PROBLEMS[name], random.Random(seed)
    optimizer, start, rows = adapt(make_client(problem, seed)), time.time(), []
    goal = 0.9 * problem.best if name == "dtlz2" else float("inf")
    while len(rows) < most and problem.volume([row["true"] for row in rows]) < goal:
        wanted = problem.initial if not rows else min(4, most - len(rows))
        for candidate in optimizer.ask(wanted).candidates:
            design = candidate.parameters
            true = merge(name, design, [part(name, design, number) for number in PARTS])
            if problem.constraint and true[problem.constraint] < 0:
                broken = {problem.constraint: (true[problem.constraint], None)}
                optimizer.tell_infeasible(candidate.index, "the design breaks the constraint", broken)
            else:
                noise = problem.noise or (0.0, 0.0)
                noisy = {f: true[f] + dice.gauss(0, s) for f, s in zip(("f1", "f2"), noise, strict=True)}
                errors = dict(zip(("f1", "f2"), problem.noise or (None, None), strict=True))
                told = {**true, **noisy}
                optimizer.tell(candidate.index, {key: (value, errors.get(key)) for key, value in told.items()})
            rows.append({"true": true, "at": time.time() - start})
    output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
