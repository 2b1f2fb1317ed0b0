"""Makespan of a fan-out workload with uneven jobs, beside the peers: how full are the slots?

Trials of sleeping jobs and a merge. Durations are log-normal, nine of ten within a factor of 10. All systems sleep the
same ones, which is checked, and all pools are warm. The bound is the larger of the total work divided by the slots and
the longest chain. Ours asks Ax for its points; a job that fails fails the benchmark.

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
from functools import cache
from heapq import heapreplace

from figures import state
from problems import sobol_client, sobol_points, sobol_strategy

POINTS = {8: 4, 64: 8}
"""Jobs of a trial; more at 64 slots, where Ax could not propose small trials as fast as they end."""
MEDIAN_S = {8: 0.3, 64: 0.6}
TRIALS = {8: 136, 64: 400}
"""So many that what is idle at the very end, when no job is left to begin, hardly counts."""
_TRIALS_OF_AX = 16
"""``Client.run_trials`` starts one trial a second, so it gets only the first of them."""
TARGETS = {8: 1.05, 64: 1.10}
_SIGMA = math.log(10) / 3.29
"""From the 5 % to the 95 % quantile, 3.29 standard deviations, it is a factor of 10."""

Outcome = tuple[float, list[tuple[float, float]]]
"""The seconds that a system took, and the designs that it ran."""


def duration(median_s: float, x: float, y: float, point: int) -> float:
    """Seconds of one job: random, but the same wherever it is computed."""
    dice = random.Random(f"{x} {y} {point}")
    return median_s * math.exp(dice.gauss(0.0, _SIGMA))


@cache
def designs(slots: int) -> list[tuple[float, float]]:
    """The designs of every system: the Sobol points that follow those that warm up our own pool."""
    return sobol_points(TRIALS[slots], skipped=_warming_up(slots))


def _warming_up(slots: int) -> int:
    """How many trials fill our pool."""
    return slots // POINTS[slots]


def jobs_of(slots: int, chosen: list[tuple[float, float]]) -> list[float]:
    """Seconds of each job, in the order of the designs."""
    return [duration(MEDIAN_S[slots], x, y, point) for x, y in chosen for point in range(POINTS[slots])]


def bound(slots: int, chosen: list[tuple[float, float]]) -> float:
    """The least time that any scheduler could need for these designs, in seconds."""
    times = jobs_of(slots, chosen)
    longest = max(times)
    return max(sum(times) / slots, longest)


def first_free_slot(slots: int) -> float:
    """What jobs in the order of the designs take when nothing costs anything: calculated, not measured."""
    ends = [0.0] * slots
    for seconds in jobs_of(slots, designs(slots)):
        heapreplace(ends, ends[0] + seconds)
    return max(ends)


def simulate_8(x, y, point):
    time.sleep(duration(MEDIAN_S[8], x, y, point))
    return {"v": x + y}


def simulate_64(x, y, point):
    time.sleep(duration(MEDIAN_S[64], x, y, point))
    return {"v": x + y}


SIMULATIONS: dict[int, Callable[..., dict[str, float]]] = {8: simulate_8, 64: simulate_64}


def merge(x, y, v):
    return {"objective": sum(v.values())}


def ours(slots: int) -> Outcome:
    """Through the whole engine, database included."""
    from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction

    function = MultiStepsFunction(
        {"simulate": {"func": SIMULATIONS[slots]}, "merge": {"func": merge, "parent_result_parameter_name": "v"}},
        deps={"merge": {"parent": "simulate", "dep_map": "all2one"}},
        global_parameters={"point": list(range(POINTS[slots]))},
        global_parameters_steps=["simulate"],
    )
    with tempfile.TemporaryDirectory() as directory:
        config = {"progress": False, "job_output_dir": directory}
        with AxScheduler(sobol_client(), JobLibRunner(n_jobs=slots), config) as scheduler:
            scheduler.set_objective_function(function)
            engine, _ = scheduler._ready()
            engine.optimize(_warming_up(slots))
            start = time.perf_counter()
            engine.optimize(TRIALS[slots])
            took = time.perf_counter() - start
            trials = list(scheduler.trials.values())[_warming_up(slots) :]
            assert all(trial.get_results() is not None for trial in trials), "a trial failed"
            chosen = [(trial.parameters["x"], trial.parameters["y"]) for trial in trials]
    return took, chosen


def fan_out_by_hand(slots: int, submit: Callable[..., Future]) -> Outcome:
    """Trials by hand on a pool: as many under way as there are slots, each merged here when its jobs are done."""
    waiting, jobs = iter(designs(slots)), {}
    parts: dict[tuple[float, float], dict[int, float]] = {}
    start = time.perf_counter()
    while True:
        while len(parts) < slots and (design := next(waiting, None)) is not None:
            parts[design] = {}
            jobs.update({submit(SIMULATIONS[slots], *design, point): (design, point) for point in range(POINTS[slots])})
        if not jobs:
            break
        done, _ = wait(jobs, return_when=FIRST_COMPLETED)
        for future in done:
            design, point = jobs.pop(future)
            parts[design][point] = future.result()["v"]
            if len(parts[design]) == POINTS[slots]:
                merge(*design, parts.pop(design))
    return time.perf_counter() - start, designs(slots)


def plain_loky(slots: int) -> Outcome:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=slots) as pool:
        list(pool.map(time.sleep, [0.5] * slots))
        return fan_out_by_hand(slots, pool.submit)


def dask(slots: int) -> Outcome:
    from distributed import Client, LocalCluster

    workers = 2
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=slots // workers, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather([client.submit(time.sleep, 0.1, pure=False) for _ in range(slots)])
        start = time.perf_counter()
        merged = []
        for x, y in designs(slots):
            parts = [client.submit(SIMULATIONS[slots], x, y, point, pure=False) for point in range(POINTS[slots])]
            merged.append(client.submit(merge_parts, x, y, parts, pure=False))
        client.gather(merged)
        return time.perf_counter() - start, designs(slots)


def merge_parts(x, y, parts):
    return merge(x, y, dict(enumerate(part["v"] for part in parts)))


def parsl(slots: int) -> Outcome:
    import parsl as library
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor as ParslThreads

    with tempfile.TemporaryDirectory() as directory:
        config = Config(
            executors=[ParslThreads(max_threads=slots)], run_dir=directory, initialize_logging=False, usage_tracking=0
        )
        library.load(config)
        simulate, join = library.python_app(SIMULATIONS[slots]), library.python_app(merge_list)
        start = time.perf_counter()
        merged = [join(x, y, *(simulate(x, y, point) for point in range(POINTS[slots]))) for x, y in designs(slots)]
        for future in merged:
            future.result()
        took = time.perf_counter() - start
        library.dfk().cleanup()
        library.clear()
    return took, designs(slots)


def merge_list(x, y, *parts):
    return {"objective": sum(part["v"] for part in parts)}


def optuna(slots: int) -> Outcome:
    """Threads over trials; a trial cannot fan out, so it runs its jobs one after the other."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    study, chosen = library.create_study(sampler=library.samplers.RandomSampler(seed=3)), []
    for x, y in designs(slots):
        study.enqueue_trial({"x": x, "y": y})

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        chosen.append((x, y))
        return merge(x, y, {point: SIMULATIONS[slots](x, y, point)["v"] for point in range(POINTS[slots])})["objective"]

    start = time.perf_counter()
    study.optimize(objective, n_trials=TRIALS[slots], n_jobs=slots)
    return time.perf_counter() - start, chosen


def ax_run_trials(slots: int) -> Outcome:
    """``Client.run_trials``. It waits a second after each start, which the client gives no means to change."""

    def work(client) -> None:
        client.run_trials(max_trials=_TRIALS_OF_AX, parallelism=slots)

    return on_ax(slots, work)


def ax_without_its_pause(slots: int) -> Outcome:
    """The loop that is inside ``Client.run_trials``, told not to wait before it looks, and to look often."""

    def work(client) -> None:
        from ax.orchestration.orchestrator import Orchestrator, OrchestratorOptions

        options = OrchestratorOptions(
            max_pending_trials=slots,
            min_seconds_before_poll=0.0,
            init_seconds_between_polls=0.02,
            seconds_between_polls_backoff_factor=1.0,
            logging_level=logging.ERROR,
        )
        experiment, strategy = client._experiment, client._generation_strategy
        Orchestrator(experiment, strategy, options).run_n_trials(max_trials=TRIALS[slots])

    return on_ax(slots, work)


def on_ax(slots: int, work: Callable[..., None]) -> Outcome:
    """A client of Ax with a runner on a pool of as many threads."""
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
            running[trial_index] = [pool.submit(SIMULATIONS[slots], x, y, point) for point in range(POINTS[slots])]
            return {}

        def poll_trial(self, trial_index, trial_metadata):
            is_over = all(future.done() for future in running[trial_index])
            return TrialStatus.COMPLETED if is_over else TrialStatus.RUNNING

        def stop_trial(self, trial_index, trial_metadata):
            return {}

    class Sum(IMetric):
        def fetch(self, trial_index, trial_metadata):
            return 0, sum(future.result()["v"] for future in running[trial_index])

    client = Client()
    client.configure_experiment(
        [RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0)) for name in ("x", "y")]
    )
    client.configure_optimization("-objective")
    client.set_generation_strategy(sobol_strategy(skipped=_warming_up(slots)))
    client.configure_runner(PoolRunner())
    client.configure_metrics([Sum(name="objective")])
    start = time.perf_counter()
    work(client)
    took = time.perf_counter() - start
    pool.shutdown()
    assert all(future.exception() is None for futures in running.values() for future in futures), "a job failed"
    return took, chosen


SYSTEMS = {
    "ours": ours,
    "plain loky": plain_loky,
    "dask.distributed": dask,
    "parsl": parsl,
    "optuna": optuna,
    "ax run_trials": ax_run_trials,
    "ax without its pause": ax_without_its_pause,
}
NOTES = {
    "ours": "whole engine, Sobol points of Ax, database",
    "plain loky": "merged by the loop",
    "dask.distributed": "2 workers with many threads",
    "parsl": "threads",
    "optuna": "threads over trials, no fan-out",
    "ax run_trials": f"threads; {_TRIALS_OF_AX} trials only: it starts one a second, and that is all it shows",
    "ax without its pause": "threads; its orchestrator with options that the client does not offer",
}

if __name__ == "__main__":
    slots = int(sys.argv[1])
    logging.disable(logging.INFO)
    designs(slots)  # outside the measured time
    for name in sys.argv[2:] or SYSTEMS:
        took, chosen = SYSTEMS[name](slots)
        expected = designs(slots)[: _TRIALS_OF_AX if name == "ax run_trials" else None]
        assert sorted(chosen) == sorted(expected), f"{name} did not run the designs of the others"
        if name == "ours":
            without_cost = first_free_slot(slots) / bound(slots, expected)
            state(
                f"makespan at {slots} slots, calculated", without_cost, note="first free slot, nothing costs anything"
            )
        target = TARGETS[slots] if name == "ours" else None
        state(f"makespan at {slots} slots, {name}", took / bound(slots, expected), at_most=target, note=NOTES[name])
