"""How long it takes to take up a run, by its length: opening the database, replaying the events, deciding."""

from __future__ import annotations

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


def resume(jobs: int) -> float:
    """Seconds to resume a finished run of so many jobs: the median of three times."""
    settings = EngineSettings(max_parallel_trials=64)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create("bench", Path(directory), about={"identity": {}})
        engine = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=settings)
        engine.optimize(jobs // JOBS_PER_TRIAL)
        engine.close()
        run.close()
        return statistics.median(once(run, jobs, settings) for _ in range(3))


def once(run: RunDirectory, jobs: int, settings: EngineSettings) -> float:
    """Seconds to resume a run in a fresh engine."""
    start = time.perf_counter()
    store = Store.open(run.store.path, to_write=True)
    engine = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=settings)
    engine.resume(store.events(), saved_at=0)
    took = time.perf_counter() - start
    assert len(engine.state.trials) == jobs // JOBS_PER_TRIAL
    engine.close()
    store.close()
    return took


if __name__ == "__main__":
    resume(1_000)
    seconds = {count: resume(count) for count in (1_000, 10_000, 30_000)}
    for count, took in seconds.items():
        state(f"resume of {count:,} jobs", took, "s", at_most=3.0 if count == 10_000 else None, note="median of 3")
    growth = math.log(seconds[30_000] / seconds[10_000], 3)
    state("resume, growth law", growth, at_most=1.1, note="exponent, from 10,000 to 30,000 jobs")
