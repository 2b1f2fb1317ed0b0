"""What a job costs on the embedded PanDA site although the shipped module imports Ax.

20 jobs one after the other and 20 at once, after a first one that pays for the import.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from figures import state

JOBS = 20
PROGRAM = """
from ax.service.ax_client import AxClient


def objective(x):
    return {"objective": x}
"""


def finish(runner, attempts) -> float:
    """Submit attempts and wait for their results; wall time in seconds."""
    import threading

    from scheduler.core.observations import HasFailed, HasSucceeded

    bell = threading.Event()
    runner.on_wake(bell.set)
    start = time.perf_counter()
    native = runner.submit(attempts)
    assert all(isinstance(each, str) for each in native.values()), native
    open_labels = set(native)
    while open_labels:
        bell.wait(1)
        bell.clear()
        for label, seen in runner.poll({label: native[label] for label in open_labels}).items():
            assert not isinstance(seen, HasFailed), seen.failure
            if isinstance(seen, HasSucceeded):
                open_labels.discard(label)
    return time.perf_counter() - start


if __name__ == "__main__":
    import importlib.util
    import logging

    logging.disable(logging.INFO)
    from scheduler import PanDAiDDSRunner
    from scheduler.core.specs import Function
    from scheduler.runners.base_runner import Attempt

    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "source", "program.py")
        program.parent.mkdir()
        program.write_text(PROGRAM)
        spec = importlib.util.spec_from_file_location("program", program)
        module = sys.modules["program"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

        def attempt(number):
            job = Path(directory, "run", "trials", str(number), "objective", "None")
            return Attempt(f"t{number}", Function(module.objective), {"x": number}, job)

        runner = PanDAiDDSRunner(service="local", source_dir=str(program.parent))
        first = finish(runner, [attempt(0)])
        serial = sum(finish(runner, [attempt(number)]) for number in range(1, 1 + JOBS))
        together = finish(runner, [attempt(number) for number in range(1 + JOBS, 1 + 2 * JOBS)])
        runner.close()
    state("embedded site, first job", first, "s", note="imports Ax")
    state("embedded site, a job", 1e3 * serial / JOBS, "ms", at_most=100.0, note="one after the other")
    state("embedded site, a job of many", 1e3 * together / JOBS, "ms", at_most=100.0, note=f"{JOBS} at once")
