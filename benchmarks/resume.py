"""How long it takes to take up a run, by its length: opening the database, replaying the events, deciding."""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import time
from pathlib import Path

from figures import state
from many_jobs import JOBS_PER_TRIAL, WORKFLOW
from problems import QuietOptimizer

from scheduler.engine import Engine, EngineSettings
from scheduler.run_directory import RunDirectory
from scheduler.store import Store
from scheduler.testing import FakeRunner

COUNTS, ROUNDS = (1_000, 10_000, 30_000), 3
SETTINGS = EngineSettings(max_parallel_trials=64)


def make_run(jobs: int, path: Path) -> RunDirectory:
    """A finished run of so many jobs."""
    run = RunDirectory.create("bench", path.parent, path, about={"identity": {}})
    engine = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=SETTINGS)
    engine.optimize(jobs // JOBS_PER_TRIAL)
    engine.close()
    run.close()
    return run


def resume(run: RunDirectory) -> float:
    """Seconds to resume a run in a fresh engine."""
    gc.collect()
    start = time.perf_counter()
    store = Store.open(run.store.path, to_write=True)
    engine = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=SETTINGS)
    engine.resume(store.events(), saved_at=0)
    took = time.perf_counter() - start
    engine.close()
    store.close()
    return took


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        runs = [make_run(count, Path(directory, str(count))) for count in COUNTS]
        resume(runs[0])
        rounds = [[resume(run) for run in runs] for _ in range(ROUNDS)]
    for count, *seconds in zip(COUNTS, *rounds, strict=True):
        most = 3.0 if count == 10_000 else None
        note = f"median of {ROUNDS} rounds"
        state(f"resume of {count:,} jobs", statistics.median(seconds), "s", at_most=most, note=note)
    growth = statistics.median(math.log(seconds[2] / seconds[1], 3) for seconds in rounds)
    state("resume, growth law", growth, note="exponent, from 10,000 to 30,000 jobs")
