"""A trivial objective, 50 Sobol trials, two workers: ours beside the same loop written by hand on loky.

Both start their workers cold in every repetition. The time that Ax itself needs for asking and telling is measured in
the loop by hand; what is left of our time beyond it is the overhead of the engine, the runner and the files of a job.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, wait

from figures import state
from problems import objective, sobol_client

TRIALS, WORKERS, REPEATS = 50, 2, 5


def by_hand() -> tuple[float, float]:
    """Wall time, and the part of it spent in Ax."""
    from loky import ProcessPoolExecutor

    client, in_ax, pending, asked = sobol_client(), 0.0, {}, 0
    start = time.perf_counter()
    with ProcessPoolExecutor(max_workers=WORKERS) as executor:
        while asked < TRIALS or pending:
            while asked < TRIALS and len(pending) < WORKERS:
                before = time.perf_counter()
                parameters, index = client.get_next_trial()
                in_ax += time.perf_counter() - before
                asked += 1
                pending[executor.submit(objective, **parameters)] = index
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                before = time.perf_counter()
                client.complete_trial(pending.pop(future), future.result())
                in_ax += time.perf_counter() - before
        elapsed = time.perf_counter() - start
    return elapsed, in_ax


def ours() -> float:
    """Wall time."""
    from scheduler import AxScheduler, JobLibRunner

    client = sobol_client()
    with tempfile.TemporaryDirectory() as directory:
        config = {"progress": False, "job_output_dir": directory}
        with AxScheduler(client, JobLibRunner(n_jobs=WORKERS), config) as scheduler:
            scheduler.set_objective_function(objective)
            start = time.perf_counter()
            engine, _ = scheduler._ready()
            engine.optimize(TRIALS)
            return time.perf_counter() - start


if __name__ == "__main__":
    by_hand(), ours()
    hand, ax, mine = [], [], []
    for _ in range(REPEATS):
        elapsed, in_ax = by_hand()
        hand.append(elapsed)
        ax.append(in_ax)
        mine.append(ours())
    ratios = sorted(a / b for a, b in zip(mine, hand, strict=True))
    note = f"median of {REPEATS} pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}; workers started"
    state(f"{TRIALS} Sobol trials, against a loop by hand on loky", statistics.median(ratios), at_most=1.1, note=note)
    extra = 1e3 * statistics.median(a - b for a, b in zip(mine, ax, strict=True)) / TRIALS
    state("a trial, beyond Ax's ask and tell", extra, "ms", at_most=10.0, note="workers started")
