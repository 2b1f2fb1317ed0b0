"""What a trivial job costs on this machine beyond plain loky, for functions: the engine, the database and the process.

Usage: per_job.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

from figures import state
from problems import QuietOptimizer

from scheduler import JobLibRunner
from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine
from scheduler.run_directory import RunDirectory

POINTS, TRIALS, WORKERS, ROUNDS = 19, 20, 2, 5
JOBS = (POINTS + 1) * TRIALS


def objective(x):
    return {"objective": x}


def simulate(x, point):
    return {"v": x + point}


def merge(x, v):
    return {"objective": len(v)}


ONE_JOB = WorkflowSpec((StepSpec("only", Function(objective), "local"),), "only")
FAN_OUT = WorkflowSpec(
    (
        StepSpec("simulate", Function(simulate), "local", fans_out=True),
        StepSpec(
            "merge", Function(merge), "local", (Dependency("simulate", mapping=DependencyMap.ALL2ONE, parameter="v"),)
        ),
    ),
    "merge",
    {"point": tuple(range(POINTS))},
)


def by_loky() -> float:
    """Milliseconds per job."""
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=WORKERS) as pool:
        list(pool.map(objective, range(2 * WORKERS)))
        pending, asked, start = set(), 0, time.perf_counter()
        while asked < JOBS or pending:
            while asked < JOBS and len(pending) < WORKERS:
                pending.add(pool.submit(objective, float(asked)))
                asked += 1
            _, pending = wait(pending, return_when=FIRST_COMPLETED)
        return 1e3 * (time.perf_counter() - start) / JOBS


def by_us(workflow: WorkflowSpec, trials: int) -> float:
    """Milliseconds per job."""
    runner = JobLibRunner(n_jobs=WORKERS)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create("bench", Path(directory), about={"identity": {}})
        engine = Engine(workflow, QuietOptimizer(), {"local": runner}, run)
        engine.optimize(2 * WORKERS)
        start = time.perf_counter()
        engine.optimize(trials)
        took = time.perf_counter() - start
        engine.close()
        runner.close()
        run.close()
    return 1e3 * took / JOBS


if __name__ == "__main__":
    rounds = [(by_us(FAN_OUT, TRIALS), by_us(ONE_JOB, JOBS), by_loky()) for _ in range(ROUNDS)]
    fanned, alone, loky = (statistics.median(column) for column in zip(*rounds, strict=True))
    extras = sorted(mine - theirs for mine, _, theirs in rounds)
    state("a job, plain loky", loky, "ms", note=f"median of {ROUNDS} rounds, like the others")
    state("a job of a fan-out, ours", fanned, "ms")
    note = f"{extras[0]:.1f} to {extras[-1]:.1f} ms"
    state("a job of a fan-out, ours beyond plain loky", statistics.median(extras), "ms", at_most=3.0, note=note)
    state("a trial of one job, ours", alone, "ms", note="proposed and told one by one")
