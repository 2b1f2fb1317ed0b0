"""How long it takes to take up a run, by its length: opening the database, replaying the events, deciding."""

from __future__ import annotations

import math
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
    """Seconds to resume a finished run of so many jobs."""
    settings = EngineSettings(max_parallel_trials=64)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create("bench", Path(directory), about={"identity": {}})
        engine = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=settings)
        engine.optimize(jobs // JOBS_PER_TRIAL)
        engine.close()
        file = run.store.path
        run.close()
        start = time.perf_counter()
        store = Store.open(file, to_write=True)
        again = Engine(WORKFLOW, QuietOptimizer(), {"fake": FakeRunner()}, run, settings=settings)
        again.resume(store.events(), saved_at=0)
        took = time.perf_counter() - start
        assert len(again.state.trials) == jobs // JOBS_PER_TRIAL
        again.close()
        store.close()
    return took


if __name__ == "__main__":
    resume(1_000)
    seconds = {count: resume(count) for count in (1_000, 10_000, 50_000)}
    for count, took in seconds.items():
        state(f"resume of {count:,} jobs", took, "s", at_most=3.0 if count == 10_000 else None)
    growth = math.log(seconds[50_000] / seconds[10_000], 5)
    state("resume, growth law", growth, at_most=1.1, note="exponent, from 10,000 to 50,000 jobs")
