"""Run all benchmarks, each in an interpreter of its own, and write their figures into RESULTS.md.

Exit code 1 when a benchmark failed; a target that was missed is in the table, and in the last lines.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from figures import MARK

HERE = Path(__file__).parent
SCRIPTS = (
    ("import_time",),
    ("per_job",),
    ("overhead",),
    ("embedded_site",),
    ("heterogeneous", "8", "ours"),
    ("heterogeneous", "8", "plain loky"),
    ("heterogeneous", "8", "dask.distributed"),
    ("heterogeneous", "8", "parsl"),
    ("heterogeneous", "8", "optuna"),
    ("heterogeneous", "8", "ax run_trials"),
    ("heterogeneous", "8", "ax without its pause"),
    ("heterogeneous", "64", "ours"),
    ("heterogeneous", "64", "plain loky"),
    ("heterogeneous", "64", "dask.distributed"),
    ("ask_latency",),
    ("torch_threads",),
    ("many_jobs", "10000", "100000"),
    ("store",),
    ("resume",),
)
_PACKAGES = ("ax-platform", "botorch", "torch", "loky", "distributed", "parsl", "optuna")
_PATIENCE_S = 300


def describe_machine() -> str:
    """Where and with what the figures were taken."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    system = platform.freedesktop_os_release()["PRETTY_NAME"] if sys.platform == "linux" else platform.platform()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {system} on {platform.machine()}, {os.cpu_count()} cores ({_cpu_model()}), "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, Python {platform.python_version()}; {versions}."
    )


def _cpu_model() -> str:
    """What the processor calls itself."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown model")


def measure(script: str, *arguments: str) -> tuple[list[dict[str, Any]], str | None]:
    """The figures of a benchmark, and why it failed, if it did. What it prints for people is passed on."""
    command = [sys.executable, HERE / f"{script}.py", *arguments]
    why = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            printed, _ = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too: they would disturb what is measured next
            printed, _ = process.communicate()
            why = f"not done after {_PATIENCE_S} s"
    if why is None and process.returncode:
        why = f"exit code {process.returncode}"
    figures = []
    for line in printed.splitlines():
        if line.startswith(MARK):
            figures.append(json.loads(line.removeprefix(MARK)))
        else:
            print(line, flush=True)
    return figures, why or (None if figures else "it stated no figure")


def as_row(figure: dict[str, Any]) -> str:
    """A row of the table."""
    target = figure["at_most"]
    verdict = "" if target is None else "met" if figure["value"] <= target else "**missed**"
    most = "" if target is None else f"{target:g} {figure['unit']}".strip()
    value = f"{figure['value']:.4g} {figure['unit']}".strip()
    return f"| {figure['what']} | {value} | {most} | {verdict} | {figure['note']} |"


def main() -> int:
    print(describe_machine())
    figures, failed, begin = [], [], time.perf_counter()
    for script in SCRIPTS:
        name = " ".join(script)
        print(f"\n{name}", flush=True)
        start = time.perf_counter()
        found, why = measure(*script)
        figures += found
        if why is not None:
            failed.append(f"{name}: {why}")
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    took = time.perf_counter() - begin
    missed = [each["what"] for each in figures if each["at_most"] is not None and each["value"] > each["at_most"]]
    ending = [
        *(f"* failed: {each}" for each in failed),
        *(f"* missed: {each}" for each in missed),
    ] or ["* All targets are met."]
    lines = [
        "# Benchmarks",
        "",
        f"{describe_machine()} Measured in one run of `make bench` of {took:.0f} s; README.md explains the figures.",
        "",
        "| what | measured | at most | target | |",
        "|---|---|---|---|---|",
        *map(as_row, figures),
        "",
        *ending,
        "",
    ]
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    print("\n" + "\n".join(ending))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
