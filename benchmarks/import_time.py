"""What ``import scheduler`` costs over the bare interpreter, and what it loads."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from figures import state

REPEATS = 15
HEAVY = ("ax", "torch", "joblib", "loky", "idds", "numpy", "rich")


def seconds(code: str) -> float:
    """Median wall time of an interpreter that runs this code."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    bare, ours = seconds("pass"), seconds("import scheduler")
    listing = f"import scheduler, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True).stdout.strip()
    note = f"beyond {1e3 * bare:.1f} ms of the bare interpreter; loads {loaded or 'nothing heavy'}"
    state("import scheduler", 1e3 * (ours - bare), "ms", at_most=50.0, note=note)
