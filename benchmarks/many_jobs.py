"""Many jobs through the engine with the fake runner: seconds, memory and how they grow.

Each trial has 8 points and a merge; the backend answers at once, so everything measured is ours.
"""

from __future__ import annotations

import math
import resource
import sys
import time

from figures import state
from problems import QuietOptimizer

from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings
from scheduler.testing import FakeRunner, MemoryRun

WORKFLOW = WorkflowSpec(
    (
        StepSpec("sim", Function(lambda x, point: {"v": x + point}), "fake", fans_out=True),
        StepSpec(
            "final",
            Function(lambda x, v: {"objective": sum(v.values())}),
            "fake",
            (Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v"),),
        ),
    ),
    "final",
    {"point": tuple(range(8))},
)
JOBS_PER_TRIAL = 9


def run(jobs: int) -> tuple[float, int]:
    """Seconds for this many jobs, and how many events they made."""
    trials = jobs // JOBS_PER_TRIAL
    optimizer = QuietOptimizer()
    journal, settings = MemoryRun(), EngineSettings(max_parallel_trials=64)
    engine = Engine(WORKFLOW, optimizer, {"fake": FakeRunner()}, journal, settings=settings)
    start = time.perf_counter()
    engine.optimize(trials)
    elapsed = time.perf_counter() - start
    assert len(optimizer.told) == trials
    engine.close()
    return elapsed, len(journal.events)


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]] or [1_000, 10_000]
    run(1_000)  # what is only slow the first time would flatter the growth
    for count in counts:
        first, _ = run(count // 10)
        seconds, events = run(count)
        growth = math.log10(seconds / first)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        state(f"{count:,} jobs on the fake runner", seconds, "s", at_most=2e-3 * count)
        state(f"{count:,} jobs, a job", 1e3 * seconds / count, "ms", note=f"{events / seconds:,.0f} events/s")
        state(f"{count:,} jobs, growth law", growth, at_most=1.1, note="exponent, from a tenth of the jobs")
        state(f"{count:,} jobs, peak memory", peak_mb, "MB", at_most=500.0 if count <= 10_000 else None)
