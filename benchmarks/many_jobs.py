"""Many jobs through the engine with the fake runner: seconds, memory and how they grow.

Each trial has 8 points and a merge; the backend answers at once, so everything measured is ours.
"""

from __future__ import annotations

import resource
import sys
import time

from scheduler.core.specs import Dependency, DependencyMap, Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings
from scheduler.testing import FakeOptimizer, FakeRunner, MemoryRun

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


def run(jobs: int) -> float:
    """Seconds for this many jobs."""
    trials = jobs // JOBS_PER_TRIAL
    optimizer = FakeOptimizer()
    engine = Engine(
        WORKFLOW, optimizer, {"fake": FakeRunner()}, MemoryRun(), settings=EngineSettings(max_parallel_trials=64)
    )
    start = time.perf_counter()
    engine.optimize(trials)
    elapsed = time.perf_counter() - start
    assert len(optimizer.told) == trials
    engine.close()
    return elapsed


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]] or [1_000, 10_000]
    for count in counts:
        seconds = run(count)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"{count:7d} jobs: {seconds:6.2f} s, {1e3 * seconds / count:.3f} ms per job, peak {peak_mb:.0f} MB")
