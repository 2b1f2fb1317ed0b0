"""The closure tests: the whole engine beside a bare loop, problem by problem and seed by seed.

Usage: run.py [PROBLEM ...]     all of them by default: dtlz2, branincurrin, c2dtlz2, detector

What is done is kept in .results/ beside this file, so that a campaign that was broken off goes on.
At the end RESULTS.md and the plots are written. Exit code 1 when a target is missed or something broke.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detector_study import measure as measure_detector
from problems import PARTS, PROBLEMS, merge, part

from report import write_report
from scheduler.core.events import TrialTold
from scheduler.errors import SchedulerError
from scheduler.run_view import RunView

HERE = Path(__file__).parent
RESULTS = HERE / ".results"
SEEDS = {"dtlz2": range(5), "branincurrin": range(3), "c2dtlz2": range(5)}
MOST = {"dtlz2": 120, "branincurrin": 86, "c2dtlz2": 60}
KILL_AFTER = 16
"""Trials that are told before the program is killed."""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run_bare(name: str, seed: int) -> None:
    output = RESULTS / f"{name}-{seed}-bare.json"
    if output.exists():
        return
    with (RESULTS / f"{name}-{seed}-bare.log").open("w") as log:
        draft = output.with_suffix(".new")
        command = [sys.executable, HERE / "bare.py", name, str(seed), str(MOST[name]), draft]
        subprocess.run(command, env=environment(), stdout=log, stderr=log, check=True)
    draft.rename(output)


def run_ours(name: str, seed: int) -> None:
    output = RESULTS / f"{name}-{seed}-ours.json"
    if output.exists():
        return
    run, kills, start = RESULTS / f"{name}-{seed}" / "run", 0, time.time()
    with (RESULTS / f"{name}-{seed}-ours.log").open("a") as log:
        while True:
            command = [sys.executable, HERE / "ours.py", name, str(seed), str(MOST[name]), run, str(trials_of(run))]
            program = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
            while program.poll() is None and (kills or trials_of(run, "is_told") < KILL_AFTER):
                time.sleep(1.0)
            if program.poll() is not None:
                break
            program.kill()
            program.wait()
            kills += 1
    if program.returncode:
        raise RuntimeError(f"{name}, seed {seed}: the program failed, see {name}-{seed}-ours.log")
    facts = {"commit": commit(), "kills": kills, "took_s": time.time() - start}
    output.write_text(json.dumps({**facts, **what_came_of(name, run)}))


def commit() -> str:
    """Which version was measured, with ``-dirty`` behind it when files differ."""
    command = ["git", "-C", HERE, "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def trials_of(run: Path, condition: str = "1") -> int:
    """How many trials of a run meet a condition of SQL, however far its program is."""
    try:
        view = RunView(run)
    except SchedulerError:
        return 0
    try:
        return int(str(view.store.query(f"SELECT count(*) FROM trials WHERE {condition}")[0][0]))  # noqa: S608
    finally:
        view.close()


def what_came_of(name: str, run: Path) -> dict[str, object]:
    """The noise-free values of all trials in the order in which Ax was told, and whether anything was done twice."""
    view = RunView(run)
    designs = {trial.index: trial.parameters for trial in view.trials()}
    rows, times, first = [], [], None
    for _, event in view.store.events():
        first = event.at if first is None else first
        if isinstance(event, TrialTold):
            design = designs[event.trial]
            rows.append(merge(name, design, [part(name, design, number) for number in PARTS]))
            times.append(event.at - first)
    counts = {str(state): count for state, count in view.trial_counts().items()}
    retries = view.store.query("SELECT count(*) FROM events WHERE kind = 'RetryScheduled'")[0][0]
    with_errors = view.store.query(
        "SELECT count(*) FROM events WHERE kind = 'TrialTold' AND body NOT LIKE '%null]%' AND body LIKE '%\"f1\"%'"
    )[0][0]
    problems = list(view.problems())
    view.close()
    return {
        "rows": [{"true": true, "at": at} for true, at in zip(rows, times, strict=True)],
        "counts": counts,
        "retries": retries,
        "told with errors": with_errors,
        "problems": problems,
    }


def main(names: list[str]) -> int:
    RESULTS.mkdir(exist_ok=True)
    jobs = [
        (side, name, seed)
        for name in names
        if name in PROBLEMS
        for seed in SEEDS[name]
        for side in (run_bare, run_ours)
    ]
    broken = []
    with ThreadPoolExecutor(2) as pool:
        pending = [(side.__name__, name, seed, pool.submit(side, name, seed)) for side, name, seed in jobs]
        for side, name, seed, outcome in pending:
            error = outcome.exception()
            print(f"{name}, seed {seed}, {side.removeprefix('run_')}: {'done' if error is None else error}", flush=True)
            broken += [error] if error is not None else []
    if "detector" in names:
        output = RESULTS / "detector.json"
        if not output.exists():
            output.write_text(json.dumps({"commit": commit(), **measure_detector(RESULTS / "detector")}))
        print("detector: done", flush=True)
    missed = write_report(RESULTS, HERE)
    for line in missed:
        print(f"missed: {line}")
    return int(bool(broken or missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [*PROBLEMS, "detector"]))
