"""Run all benchmarks, each in an interpreter of its own, and print their figures with what they were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("import_time", "overhead", "embedded_site", "full_slots", "many_jobs", "store")


def describe_machine() -> str:
    """One line that says where and with what the figures were taken."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ax-platform", "torch", "loky"))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    print(describe_machine())
    failed = []
    for name in SCRIPTS:
        print(f"\n{name}", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode != 0:
            failed.append(name)
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
