"""What a job costs the driver on the grid, and how long a result takes from the broker to the optimizer.

Starts the real iDDS, ActiveMQ and the small PanDA of the live tests, and a program that runs trivial jobs all at once.
A listener of its own on the broker notes when each result was published; the events of the run say when its trial
was told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.live.environments import panda_client  # noqa: E402

try:
    import stomp
except ImportError:  # the environment of a user of the grid has it
    os.execv(panda_client().python, [str(panda_client().python), *sys.argv])  # noqa: S606

import psutil  # noqa: E402
from tests.live.broker import why_no_broker  # noqa: E402
from tests.live.grid import Grid, Setup  # noqa: E402

from scheduler.core.events import Submitted, TrialTold  # noqa: E402
from scheduler.run_view import RunView  # noqa: E402


class Publications(stomp.ConnectionListener):
    """When each work's first result was published."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def on_message(self, frame: stomp.utils.Frame) -> None:
        self.at.setdefault(f"{frame.headers['request_id']}.{frame.headers['transform_id']}", time.time())


def listen(grid: Grid) -> tuple[stomp.Connection12, Publications]:
    address = grid.broker_address
    connection = stomp.Connection12(host_and_ports=[("127.0.0.1", address.port)])
    heard = Publications()
    connection.set_listener("bench", heard)
    connection.connect(address.username, address.password, wait=True)
    connection.subscribe(destination=address.destination, id="bench", ack="auto")
    return connection, heard


def watch(process: psutil.Process, is_over: threading.Event, peak: dict[str, float]) -> None:
    while not is_over.wait(0.2):
        try:
            established = [each for each in process.net_connections() if each.status == "ESTABLISHED"]
            for name, value in (
                ("threads", process.num_threads()),
                ("connections", len(established)),
                ("memory_mb", process.memory_info().rss / 1e6),
            ):
                peak[name] = max(peak.get(name, 0), value)
        except psutil.NoSuchProcess:
            return


def latencies(run: Path, published: dict[str, float]) -> Iterator[float]:
    """Seconds from each result's publication to its trial told."""
    view = RunView(run)
    native: dict[int, str] = {}
    for _, event in view.store.events():
        if isinstance(event, Submitted):
            native[event.job.trial] = event.native_id
        elif isinstance(event, TrialTold) and event.failure is None:
            yield event.at - published[native[event.trial]]
    view.close()


def measure(work: Path, jobs: int) -> None:
    with Grid(work / "grid", Setup(has_broker=True)) as grid:
        connection, heard = listen(grid)
        directory = work / "program"
        directory.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "OMP_NUM_THREADS": "1", **grid.environment}
        start = time.time()
        command = [grid.python, str(HERE / "program.py"), str(jobs)]
        with (
            (directory / "log.txt").open("w") as log,
            subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log) as program,
        ):
            peak: dict[str, float] = {}
            is_over = threading.Event()
            thread = threading.Thread(target=watch, args=(psutil.Process(program.pid), is_over, peak))
            thread.start()
            code = program.wait()
            is_over.set()
            thread.join()
        if code:
            sys.exit((directory / "log.txt").read_text()[-4000:])
        took = time.time() - start
        told = sorted(latencies(directory / "run", heard.at))
        requests = [each for each in grid.requests() if each["server"] == "panda" and each["time"] >= start]
        connection.disconnect()
    cost = json.loads((directory / "cost.json").read_text())
    mine = [each for each in requests if "/cache/" not in each["path"] and "task/submit" not in each["path"]]
    print(f"  {jobs} jobs in {took:.0f} s; {len(told)} trials told")
    print(f"  driver: {1000 * cost['cpu_s'] / jobs:.1f} ms of CPU per job, Ax and database included (target 50 ms)")
    print(f"  requests to PanDA and iDDS: {len(mine) / jobs:.2f} per job, of which 1 is its submission (target 1 + 3)")
    print(
        f"  at most {peak['threads']:.0f} threads (numerical libraries included), {peak['connections']:.0f} connections"
    )
    print(f"  memory at most {peak['memory_mb']:.0f} MB")
    print(
        f"  published result -> trial told: median {1000 * statistics.median(told):.0f} ms, "
        f"90 % below {1000 * told[int(0.9 * len(told))]:.0f} ms, longest {1000 * told[-1]:.0f} ms (target 200 ms)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    arguments = parser.parse_args()
    if why_no_broker():
        sys.exit(f"cannot be measured here: {why_no_broker()}")
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), arguments.jobs)
