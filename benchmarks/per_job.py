"""What a job costs beyond a plain loky pool: trivial functions, two workers, without Ax on either side.

Ours is the engine with its database, files and JobLibRunner. Rounds of both alternate.
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
from scheduler.core.specs import Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings
from scheduler.run_directory import RunDirectory

JOBS, WORKERS, ROUNDS = 400, 2, 7


def objective(x):
    return {"objective": x}


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


def by_us() -> float:
    """Milliseconds per job."""
    workflow = WorkflowSpec((StepSpec("only", Function(objective), "local"),), "only")
    runner = JobLibRunner(n_jobs=WORKERS)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create("bench", Path(directory), about={"identity": {}})
        settings = EngineSettings(max_parallel_trials=WORKERS)
        engine = Engine(workflow, QuietOptimizer(), {"local": runner}, run, settings=settings)
        engine.optimize(2 * WORKERS)
        start = time.perf_counter()
        engine.optimize(JOBS)
        took = time.perf_counter() - start
        engine.close()
        runner.close()
        run.close()
    return 1e3 * took / JOBS


if __name__ == "__main__":
    rounds = [(by_us(), by_loky()) for _ in range(ROUNDS)]
    ours, loky = (statistics.median(column) for column in zip(*rounds, strict=True))
    extras = sorted(mine - theirs for mine, theirs in rounds)
    state("a job, ours", ours, "ms")
    state("a job, plain loky", loky, "ms")
    note = f"median of {ROUNDS} rounds, {extras[0]:.1f} to {extras[-1]:.1f} ms"
    state("a job, ours beyond plain loky", statistics.median(extras), "ms", at_most=3.0, note=note)
