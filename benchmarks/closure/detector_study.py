"""Runs the detector study and accounts for every job of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from scheduler.core.events import Submitting, Succeeded, TrialTold
from scheduler.run_view import RunView

HERE = Path(__file__).parent
PLAIN = HERE.parents[1] / ".cache" / "plain" / "bin" / "python"
"""An environment with the package alone. Ax and pandas load what peers and development tools bring, too."""


def measure(directory: Path) -> dict[str, object]:
    """Figures of the run: jobs by step, done twice or lost, and what the driver took of the machine."""
    if not PLAIN.exists():
        raise RuntimeError(f"{PLAIN} is missing; `make closure` makes it")
    directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start, cpu_s = time.time(), 0.0
    with (directory / "log.txt").open("w") as log:
        command = [PLAIN, HERE / "detector_program.py", directory / "run"]
        program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        driver = psutil.Process(program.pid)
        began = None
        while program.poll() is None:
            try:
                used = driver.cpu_times().user + driver.cpu_times().system
            except psutil.NoSuchProcess:
                break
            if began is None and (directory / "run" / "experiment.db").exists():
                began = (time.time(), used)
            cpu_s = used
            time.sleep(0.2)
        output, _ = program.communicate()
    if program.returncode or began is None:
        raise RuntimeError(f"the detector study failed, see {directory / 'log.txt'}")
    took_s, cores = time.time() - start, (cpu_s - began[1]) / (time.time() - began[0])
    command = [PLAIN, HERE / "detector_bare.py"]
    bare = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {
        "took_s": took_s,
        "driver cores": cores,
        "driver memory_mb": _as_mb(output),
        "bare loop memory_mb": _as_mb(bare),
        **account(directory / "run"),
    }


def _as_mb(output: str) -> float:
    """The peak that a program has printed last, in kB as Linux counts it."""
    return int(output.rsplit(maxsplit=1)[-1]) * 1024 / 1e6


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
