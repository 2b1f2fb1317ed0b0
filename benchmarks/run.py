"""Run all benchmarks, each in an interpreter of its own, and write their figures into RESULTS.md.

Exit code 1 when a benchmark failed; a target that was missed is in the table, and in the last lines.
"""

from __future__ import annotations

import json
import os
import platform
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
    ("heterogeneous", "8"),
    ("heterogeneous", "64", "ours", "plain loky", "dask.distributed", "parsl"),
    ("ask_latency",),
    ("torch_threads",),
    ("many_jobs", "10000"),
    ("many_jobs", "100000"),
    ("store",),
    ("resume",),
)
_PACKAGES = ("ax-platform", "botorch", "torch", "loky", "distributed", "parsl", "optuna")
_PATIENCE_S = 300


def describe_machine() -> str:
    """Where and with what the figures were taken."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, Python {platform.python_version()}; {versions}."
    )


def measure(script: str, *arguments: str) -> tuple[list[dict[str, Any]], str | None]:
    """The figures of a benchmark, and why it failed, if it did. What it prints for people is passed on."""
    command = [sys.executable, HERE / f"{script}.py", *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"not done after {_PATIENCE_S} s"
    figures = []
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            figures.append(json.loads(line.removeprefix(MARK)))
        else:
            print(line, flush=True)
    return figures, f"exit code {done.returncode}" if done.returncode else None


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
