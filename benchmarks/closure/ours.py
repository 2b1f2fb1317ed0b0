"""The same problem through the whole engine: a fan-out of 4 jobs and a merge for each design, 4 designs at once.

Usage: ours.py PROBLEM SEED MOST_TRIALS RUN_DIRECTORY [ALREADY]

A part takes two seconds, so that designs are really under way together. A tenth of the jobs fail the first time they
are tried. The program can be killed and started again with the same run
directory; ALREADY is the number of trials that the run has then.
"""

from __future__ import annotations

import functools
import hashlib
import random
import sys
import time
from pathlib import Path

from ax_setup import make_client
from problems import PARTS, PROBLEMS, merge, part

from scheduler import AxScheduler, Infeasible, JobLibRunner, MultiStepsFunction

_FAILING = 0.1
_PART_S = 2.0


def fail_now_and_then(scratch: Path, *what: object) -> None:
    """Raise in a tenth of all jobs, the first time they run."""
    digest = hashlib.sha256(repr(what).encode()).hexdigest()
    mark = scratch / digest
    if int(digest[:8], 16) < _FAILING * 2**32 and not mark.exists():
        mark.touch()
        raise RuntimeError("injected failure")


def compute_part(parameterization, *, name, scratch):
    design = {key: value for key, value in parameterization.items() if key != "number"}
    number = parameterization["number"]
    fail_now_and_then(scratch, "part", design, number)
    time.sleep(_PART_S)
    return {"value": part(name, design, number)}


def compute_merge(parameterization, *, name, scratch, seed):
    parts = parameterization["value"]
    design = {key: value for key, value in parameterization.items() if key != "value"}
    fail_now_and_then(scratch, "merge", design)
    problem = PROBLEMS[name]
    true = merge(name, design, [parts[(("number", number),)] for number in PARTS])
    if problem.constraint and true[problem.constraint] < 0:
        raise Infeasible("the design breaks the constraint", constraint=problem.constraint, value=true["c2"])
    if problem.noise is None:
        return true
    dice = random.Random(f"{seed} {sorted(design.items())}")
    noisy = {f: (true[f] + dice.gauss(0, s), s) for f, s in zip(("f1", "f2"), problem.noise, strict=True)}
    return {**noisy, "true": f"{true['f1']!r} {true['f2']!r}"}


def true_results(name, scheduler):
    """The noise-free values of the trials that gave a result."""
    problem = PROBLEMS[name]
    designs = [trial.parameters for trial in scheduler.trials.values() if trial.get_results() is not None]
    return problem.volume([merge(name, each, [part(name, each, number) for number in PARTS]) for each in designs])


def main(name: str, seed: int, most: int, run: Path, already: int) -> None:
    problem, scratch = PROBLEMS[name], run.parent / "marks"
    scratch.mkdir(exist_ok=True, parents=True)
    config = {
        "run_dir": str(run),
        "resume": True,
        "max_parallel_trials": 4,
        "progress": False,
        "retries": 2,
    }
    scheduler = AxScheduler(make_client(problem, seed), JobLibRunner(n_jobs=16), config)
    steps = {
        "part": {"func": bind(compute_part, name=name, scratch=scratch)},
        "merge": {
            "func": bind(compute_merge, name=name, scratch=scratch, seed=seed),
            "parent_result_parameter_name": "value",
        },
    }
    scheduler.set_objective_function(
        MultiStepsFunction(
            steps,
            deps={"merge": {"parent": "part", "dep_map": "all2one"}},
            global_parameters={"number": list(PARTS)},
            global_parameters_steps=["part"],
        )
    )
    if name != "dtlz2":
        scheduler.run_optimization(max_trials=most)
        return
    count = max(problem.initial, already)
    scheduler.run_optimization(max_trials=count)
    while count < most and true_results(name, scheduler) < 0.9 * problem.best:
        count += 4
        scheduler.run_optimization(max_trials=count)


def bind(function, **fixed):
    """The function of one mapping, with the rest fixed."""

    @functools.wraps(function)
    def bound(parameterization):
        return function(parameterization, **fixed)

    del bound.__wrapped__  # its signature is its own
    return bound


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).absolute(), int((sys.argv[5:] or ["0"])[0]))
