"""Makespan of a fan-out workload with uneven jobs, beside the peers: how full are the slots?

Trials of 4 sleeping jobs and a merge. Durations are log-normal within a factor of 10. The bound is the larger of the
total work divided by the slots and the longest chain; each system is compared with the bound of the very durations that
it slept. All pools are warm. Ours asks Ax for Sobol points.

Usage: heterogeneous.py SLOTS [SYSTEM ...]
"""

from __future__ import annotations

import logging
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from figures import state
from problems import sobol_client

POINTS = 4
MEDIAN_S = {8: 0.4, 64: 1.2}
TRIALS = {8: 108, 64: 480}
_TRIALS_OF_AX = 24
"""Ax's own loop takes five times the bound, so it gets fewer of them."""
TARGETS = {8: 1.05, 64: 1.10}
_SIGMA = math.log(10) / 3.29
"""90 % of the durations lie within a factor of 10; the rest is drawn again."""


def duration(median_s: float, x: float, y: float, point: int) -> float:
    """Seconds of one job: random, but the same wherever it is computed."""
    dice = random.Random(f"{x} {y} {point}")
    while abs(exponent := dice.gauss(0.0, _SIGMA)) > math.log(10) / 2:
        pass
    return median_s * math.exp(exponent)


def designs(count: int) -> list[tuple[float, float]]:
    """Designs for the systems that do not ask Ax."""
    dice = random.Random(3)
    return [(dice.random(), dice.random()) for _ in range(count)]


def bound(slots: int, chosen: list[tuple[float, float]]) -> float:
    """The least time that any scheduler could need for these designs, in seconds."""
    times = [[duration(MEDIAN_S[slots], x, y, point) for point in range(POINTS)] for x, y in chosen]
    longest = max(max(each) for each in times)
    return max(sum(map(sum, times)) / slots, longest)


def simulate_8(x, y, point):
    time.sleep(duration(MEDIAN_S[8], x, y, point))
    return {"v": x + y}


def simulate_64(x, y, point):
    time.sleep(duration(MEDIAN_S[64], x, y, point))
    return {"v": x + y}


SIMULATIONS: dict[int, Callable[..., dict[str, float]]] = {8: simulate_8, 64: simulate_64}


def merge(x, y, v):
    return {"objective": sum(v.values())}


def ours(slots: int) -> float:
    """Through the whole engine, database included."""
    from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction

    function = MultiStepsFunction(
        {"simulate": {"func": SIMULATIONS[slots]}, "merge": {"func": merge, "parent_result_parameter_name": "v"}},
        deps={"merge": {"parent": "simulate", "dep_map": "all2one"}},
        global_parameters={"point": list(range(POINTS))},
        global_parameters_steps=["simulate"],
    )
    with tempfile.TemporaryDirectory() as directory:
        config = {"progress": False, "job_output_dir": directory}
        with AxScheduler(sobol_client(), JobLibRunner(n_jobs=slots), config) as scheduler:
            scheduler.set_objective_function(function)
            engine, _ = scheduler._ready()
            engine.optimize(slots // POINTS)
            start = time.perf_counter()
            engine.optimize(TRIALS[slots])
            took = time.perf_counter() - start
            trials = list(scheduler.trials.values())[slots // POINTS :]
            chosen = [(trial.parameters["x"], trial.parameters["y"]) for trial in trials]
    return took / bound(slots, chosen)


def fan_out_by_hand(slots: int, submit: Callable[..., Future]) -> float:
    """Trials by hand on a pool: as many under way as there are slots, each merged when its jobs are done."""
    chosen, waiting, jobs = designs(TRIALS[slots]), iter(designs(TRIALS[slots])), {}
    left: dict[tuple[float, float], int] = {}
    start = time.perf_counter()
    while True:
        while len(left) < slots and (design := next(waiting, None)) is not None:
            left[design] = POINTS
            jobs.update({submit(SIMULATIONS[slots], *design, point): design for point in range(POINTS)})
        if not jobs:
            break
        done, _ = wait(jobs, return_when=FIRST_COMPLETED)
        for future in done:
            design = jobs.pop(future)
            left[design] -= 1
            if not left[design]:
                del left[design]
    return (time.perf_counter() - start) / bound(slots, chosen)


def plain_loky(slots: int) -> float:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=slots) as pool:
        list(pool.map(time.sleep, [0.5] * slots))
        return fan_out_by_hand(slots, pool.submit)


def dask(slots: int) -> float:
    from distributed import Client, LocalCluster, as_completed

    workers = 2
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=slots // workers, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather([client.submit(time.sleep, 0.1, pure=False) for _ in range(slots)])
        chosen = designs(TRIALS[slots])
        start = time.perf_counter()
        merged = []
        for x, y in chosen:
            parts = [client.submit(SIMULATIONS[slots], x, y, point, pure=False) for point in range(POINTS)]
            merged.append(client.submit(merge_parts, x, y, parts, pure=False))
        for _ in as_completed(merged):
            pass
        return (time.perf_counter() - start) / bound(slots, chosen)


def merge_parts(x, y, parts):
    return merge(x, y, dict(enumerate(part["v"] for part in parts)))


def parsl(slots: int) -> float:
    import parsl as library
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor as ParslThreads

    with tempfile.TemporaryDirectory() as directory:
        config = Config(
            executors=[ParslThreads(max_threads=slots)], run_dir=directory, initialize_logging=False, usage_tracking=0
        )
        library.load(config)
        simulate, join = library.python_app(SIMULATIONS[slots]), library.python_app(merge_list)
        chosen = designs(TRIALS[slots])
        start = time.perf_counter()
        merged = [join(x, y, *(simulate(x, y, point) for point in range(POINTS))) for x, y in chosen]
        for future in merged:
            future.result()
        took = time.perf_counter() - start
        library.dfk().cleanup()
        library.clear()
    return took / bound(slots, chosen)


def merge_list(x, y, *parts):
    return {"objective": sum(part["v"] for part in parts)}


def optuna(slots: int) -> float:
    """Threads over trials; a trial cannot fan out, so it runs its jobs one after the other."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    study, chosen = library.create_study(sampler=library.samplers.RandomSampler(seed=3)), []

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        chosen.append((x, y))
        return merge(x, y, {point: SIMULATIONS[slots](x, y, point)["v"] for point in range(POINTS)})["objective"]

    start = time.perf_counter()
    study.optimize(objective, n_trials=TRIALS[slots], n_jobs=slots)
    return (time.perf_counter() - start) / bound(slots, chosen)


def ax_run_trials(slots: int) -> float:
    """Ax's own loop, with a runner on a pool of as many threads: it polls its trials."""
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig
    from ax.api.protocols.metric import IMetric
    from ax.api.protocols.runner import IRunner
    from ax.core.base_trial import TrialStatus

    logging.getLogger("ax").setLevel(logging.ERROR)
    pool, running, chosen = ThreadPoolExecutor(slots), {}, []

    class PoolRunner(IRunner):
        def run_trial(self, trial_index, parameterization):
            x, y = parameterization["x"], parameterization["y"]
            chosen.append((x, y))
            running[trial_index] = [pool.submit(SIMULATIONS[slots], x, y, point) for point in range(POINTS)]
            return {}

        def poll_trial(self, trial_index, trial_metadata):
            is_over = all(future.done() for future in running[trial_index])
            return TrialStatus.COMPLETED if is_over else TrialStatus.RUNNING

        def stop_trial(self, trial_index, trial_metadata):
            return {}

    class Sum(IMetric):
        def fetch(self, trial_index, trial_metadata):
            return 0, sum(future.result()["v"] for future in running[trial_index])

    client = Client(random_seed=3)
    client.configure_experiment(
        [RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0)) for name in ("x", "y")]
    )
    client.configure_optimization("-objective")
    client.configure_generation_strategy(initialization_budget=10_000, initialize_with_center=False)
    client.configure_runner(PoolRunner())
    client.configure_metrics([Sum(name="objective")])
    start = time.perf_counter()
    client.run_trials(max_trials=_TRIALS_OF_AX, parallelism=slots, initial_seconds_between_polls=1)
    took = time.perf_counter() - start
    pool.shutdown()
    return took / bound(slots, chosen)


SYSTEMS = {
    "ours": ours,
    "plain loky": plain_loky,
    "dask.distributed": dask,
    "parsl": parsl,
    "optuna": optuna,
    "ax run_trials": ax_run_trials,
}
NOTES = {
    "ours": "whole engine, Sobol points of Ax, database",
    "dask.distributed": "2 workers with many threads",
    "parsl": "threads",
    "optuna": "threads over trials, no fan-out",
    "ax run_trials": "threads, polled every second",
}

if __name__ == "__main__":
    slots = int(sys.argv[1])
    logging.disable(logging.INFO)
    for name in sys.argv[2:] or SYSTEMS:
        ratio = SYSTEMS[name](slots)
        target = TARGETS[slots] if name == "ours" else None
        state(f"makespan at {slots} slots, {name}", ratio, at_most=target, note=NOTES.get(name, "warm pool"))
