"""Runs the detector study and accounts for every job of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from scheduler.core.events import Submitting, Succeeded, TrialTold
from scheduler.run_view import RunView

HERE = Path(__file__).parent


def measure(directory: Path) -> dict[str, object]:
    """Figures of the run: jobs by step, done twice or lost, and what the driver took of the machine."""
    directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start, memory_mb, cpu_s = time.time(), 0.0, 0.0
    with (directory / "log.txt").open("w") as log:
        program = subprocess.Popen(
            [sys.executable, HERE / "detector_program.py", directory / "run"], env=environment, stdout=log, stderr=log
        )
        driver = psutil.Process(program.pid)
        began = None
        while program.poll() is None:
            try:
                memory_mb = max(memory_mb, driver.memory_info().rss / 1e6)
                used = driver.cpu_times().user + driver.cpu_times().system
            except psutil.NoSuchProcess:
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
        "ax alone": ax_alone_mb(environment),
        **account(directory / "run"),
    }


def ax_alone_mb(environment: dict[str, str]) -> float:
    """What a program takes that imports Ax and makes three quasi-random trials, without us, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _AX_ALONE], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


_AX_ALONE = """
import logging, psutil
logging.disable(logging.INFO)
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
client = Client()
client.configure_experiment([RangeParameterConfig(name="x", parameter_type="float", bounds=(0.0, 1.0))], name="alone")
client.configure_optimization("-a")
for _ in range(3):
    for index, design in client.get_next_trials(1).items():
        client.complete_trial(index, {"a": design["x"]})
print(psutil.Process().memory_info().rss / 1e6)
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
