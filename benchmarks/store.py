"""What keeping a run costs: per event, to resume a run of 10,000 finished jobs, and to look at its status."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

from figures import state
from many_jobs import JOBS_PER_TRIAL, WORKFLOW

from scheduler.engine import Engine, EngineSettings
from scheduler.identity import identity_of
from scheduler.run_directory import DATABASE, RunDirectory
from scheduler.store import Store
from scheduler.testing import FakeOptimizer, FakeRunner

JOBS = 10_000


class TimedRun(RunDirectory):
    """A run that keeps the time of every append, and of all commits together."""

    commit_seconds = 0.0

    def append(self, event, state, snapshot=None):
        start = time.perf_counter()
        super().append(event, state, snapshot)
        self.seconds.append(time.perf_counter() - start)

    def commit(self):
        start = time.perf_counter()
        super().commit()
        self.commit_seconds += time.perf_counter() - start


def identity():
    optimizer = FakeOptimizer()
    optimizer.experiment = SimpleNamespace(
        search_space=SimpleNamespace(parameters={"x": "x: a number"}, parameter_constraints=[])
    )
    return identity_of(WORKFLOW, optimizer)


def make_run(path: Path) -> tuple[list[float], float]:
    """A finished run; returns the seconds of its appends, and of its commits together."""
    run = TimedRun.create("benchmark", path.parent, path, about={"identity": identity()})
    run.seconds = []
    engine = Engine(
        WORKFLOW, FakeOptimizer(), {"fake": FakeRunner()}, run, settings=EngineSettings(max_parallel_trials=8)
    )
    engine.optimize(JOBS // JOBS_PER_TRIAL)
    engine.close()
    run.close()
    return run.seconds, run.commit_seconds


def resume(path: Path) -> float:
    """Seconds to have the run back in an engine."""
    start = time.perf_counter()
    run = RunDirectory.open(path)
    engine = Engine(WORKFLOW, FakeOptimizer(), {"fake": FakeRunner()}, run)
    engine.resume(run.store.events(), saved_at=10**9)
    elapsed = time.perf_counter() - start
    engine.close()
    run.close()
    return elapsed


def seconds_of(*arguments: str) -> float:
    """Median wall time of an interpreter with these arguments."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory, "run")
        appends, commits = make_run(path)
        with closing(Store.open(path / DATABASE)) as store:
            megabytes = (path / DATABASE).stat().st_size / 1e6
            events = store.query("SELECT count(*) FROM events")[0][0]
        mean = (sum(appends) + commits) / len(appends)
        note = f"median of {events} events, {megabytes:.0f} MB"
        state("store, an event", 1e3 * statistics.median(appends), "ms", at_most=1.0, note=note)
        state("store, an event with its share of commits", 1e3 * mean, "ms", at_most=1.0)
        note = f"{JOBS:,} finished jobs, beyond the import of Ax"
        state("store, resume", resume(path), "s", at_most=3.0, note=note)
        status = seconds_of("-m", "scheduler.cli", "status", str(path)) - seconds_of("-c", "pass")
        state("scheduler status of that run", status, "s", at_most=0.5, note="beyond the start of the interpreter")
