"""How long Ax takes for a candidate while other processes keep all cores busy: one torch thread beside all."""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from figures import state

from scheduler.optimizer import adapt

TRIALS, ROUNDS = 25, 2


def spin():
    while True:
        pass


@contextmanager
def busy_cores() -> Iterator[None]:
    workers = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


def make_optimizer():
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    logging.getLogger("ax").setLevel(logging.ERROR)
    client = Client(random_seed=2)
    client.configure_experiment(
        [RangeParameterConfig(name=f"x{i}", parameter_type="float", bounds=(0.0, 1.0)) for i in range(4)],
        name="threads",
    )
    client.configure_optimization("-f")
    client.configure_generation_strategy(initialization_budget=TRIALS)
    return adapt(client)


def seconds(optimizer, threads: int) -> float:
    """Seconds for a candidate."""
    optimizer.threads = threads
    start = time.perf_counter()
    with optimizer.at_work():
        (candidate,) = optimizer.ask(1).candidates
        value = sum((x - 0.4) ** 2 for x in candidate.parameters.values())
        optimizer.tell(candidate.index, {"f": (value, None)})
    return time.perf_counter() - start


if __name__ == "__main__":
    optimizer = make_optimizer()
    for _ in range(TRIALS + 1):
        seconds(optimizer, 1)
    cores = os.cpu_count() or 1
    with busy_cores():
        rounds = [(seconds(optimizer, 1), seconds(optimizer, cores)) for _ in range(ROUNDS)]
    one, all_of_them = (statistics.mean(column) for column in zip(*rounds, strict=True))
    state("a candidate while jobs keep the cores busy, one torch thread", one, "s")
    state(f"a candidate while jobs keep the cores busy, {cores} torch threads", all_of_them, "s")
    state("one torch thread against all", one / all_of_them, note=f"means of {ROUNDS} rounds")
