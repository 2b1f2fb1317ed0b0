"""How much of the optimizer's thinking is hidden behind running jobs: candidates that take half a second, jobs of four.

Usage: ask_latency.py
"""

from __future__ import annotations

import time

from figures import state

from scheduler.core.observations import HasSucceeded
from scheduler.core.specs import Function, StepSpec, WorkflowSpec
from scheduler.engine import Engine, EngineSettings
from scheduler.testing import FakeOptimizer, FakeRunner, Fate, MemoryRun

THINKS_S, JOB_S, PLACES, TRIALS = 0.5, 4.0, 4, 16


class Thinker(FakeOptimizer):
    """An optimizer whose candidates take a while."""

    def ask(self, at_most):
        time.sleep(THINKS_S)
        return super().ask(at_most)

    def prepare(self):
        time.sleep(THINKS_S)
        return super().prepare()


class PunctualRunner(FakeRunner):
    """Rings its bell when a job is over."""

    def submit(self, batch):
        import threading

        answer = super().submit(batch)
        for attempt in batch:
            timer = threading.Timer(self._entries[attempt.label].fate.running_s + 0.01, self.wake)
            timer.daemon = True
            timer.start()
        return answer


def makespan(*, ahead: bool) -> float:
    """Seconds for all trials."""
    workflow = WorkflowSpec((StepSpec("only", Function(lambda x: {"objective": x}), "fake"),), "only")
    count = iter(range(10**6))

    def fate(attempt):
        x = attempt.arguments["x"]
        return Fate(HasSucceeded({"objective": x}), running_s=JOB_S * (0.8 + 0.1 * (next(count) % 5)))

    engine = Engine(
        workflow,
        Thinker(),
        {"fake": PunctualRunner(fate)},
        MemoryRun(),
        settings=EngineSettings(max_parallel_trials=PLACES, ask_ahead=ahead, stale_after=None),
    )
    start = time.perf_counter()
    engine.optimize(TRIALS)
    engine.close()
    return time.perf_counter() - start


if __name__ == "__main__":
    least = TRIALS * JOB_S / PLACES + THINKS_S
    for ahead in (False, True):
        words = "asked ahead" if ahead else "asked when a place is free"
        state(
            f"makespan, {words}", makespan(ahead=ahead) / least, note=f"{THINKS_S:g} s a candidate, {JOB_S:g} s a job"
        )
