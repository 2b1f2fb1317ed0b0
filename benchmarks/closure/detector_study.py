"""Runs the detector study and accounts for every job of it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from scheduler.core.events import Submitting, Succeeded, TrialTold
from scheduler.run_view import RunView

HERE = Path(__file__).parent
PLAIN = HERE.parents[1] / ".cache" / "plain" / "bin" / "python"
"""An environment with the package alone: the peers bring packages that Ax and pandas load when they find them."""


def measure(directory: Path) -> dict[str, object]:
    """Figures of the run: jobs by step, done twice or lost, and what the driver took of the machine."""
    if not PLAIN.exists():
        raise RuntimeError(f"{PLAIN} is missing; `make closure` makes it")
    directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start, memory_mb, cpu_s = time.time(), 0.0, 0.0
    with (directory / "log.txt").open("w") as log:
        program = subprocess.Popen(
            [PLAIN, HERE / "detector_program.py", directory / "run"], env=environment, stdout=log, stderr=log
        )
        driver = psutil.Process(program.pid)
        began = None
        while program.poll() is None:
            try:
                memory_mb = max(memory_mb, peak_mb(program.pid))
                used = driver.cpu_times().user + driver.cpu_times().system
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                break
            if began is None and (directory / "run" / "experiment.db").exists():
                began = (time.time(), used)
            cpu_s = used
            time.sleep(0.2)
        program.wait()
    if program.returncode or began is None:
        raise RuntimeError(f"the detector study failed, see {directory / 'log.txt'}")
    return {
        "took_s": time.time() - start,
        "driver cores": (cpu_s - began[1]) / (time.time() - began[0]),
        "driver memory_mb": memory_mb,
        "bare loop memory_mb": bare_mb(environment),
        **account(directory / "run"),
    }


def peak_mb(pid: int) -> float:
    """The most resident memory that a process has had so far; 0 when it is ending. Linux counts it."""
    status = Path("/proc", str(pid), "status").read_text()
    kilobytes = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 0.0 if kilobytes is None else int(kilobytes[1]) * 1024 / 1e6


def bare_mb(environment: dict[str, str]) -> float:
    """The most memory of a loop by hand that proposes and tells as many designs and asks for the Pareto set once."""
    command = [PLAIN, "-c", _BARE_LOOP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6


_BARE_LOOP = """
import logging, resource
logging.disable(logging.WARNING)
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
names = [f"x{k}" for k in range(6)]
client = Client(random_seed=11)
client.configure_experiment(
    [RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, 1.0)) for name in names], name="bare"
)
client.configure_optimization("a, b, c", outcome_constraints=["a >= 0", "b >= 0.2", "c >= 0.3"])
client.configure_generation_strategy(initialization_budget=1000, initialize_with_center=False)
for _ in range(150):
    for index, x in client.get_next_trials(1).items():
        client.complete_trial(index, {"a": x["x0"] * x["x1"], "b": 1 - abs(x["x2"] - 0.4), "c": 1 / (1 + x["x3"])})
client.get_pareto_frontier()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def account(run: Path) -> dict[str, object]:
    view = RunView(run)
    events = [event for _, event in view.store.events()]
    done = Counter(event.job.step for event in events if isinstance(event, Succeeded))
    attempts = Counter(event.job for event in events if isinstance(event, Submitting))
    told = Counter(event.trial for event in events if isinstance(event, TrialTold))
    counts = {str(state): count for state, count in view.trial_counts().items()}
    jobs = view.jobs()
    problems = list(view.problems())
    view.close()
    return {
        "done": dict(done),
        "trials": counts,
        "jobs tried twice": sum(count > 1 for count in attempts.values()),
        "trials told twice": sum(count > 1 for count in told.values()),
        "jobs without an end": sum(not job.state.is_terminal for job in jobs),
        "problems": problems,
    }
