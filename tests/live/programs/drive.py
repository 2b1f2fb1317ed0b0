"""Drives PanDAiDDSRunner: reads orders as JSON, one a line, answers each with a line.

``{"do": "open", ...}`` with the runner's arguments, ``submit`` with a list of attempts, ``poll``, ``cancel`` and
``find`` as the runner has them, ``figures`` about the process, ``close``.
"""

import json
import logging
import os
import threading
import time
from pathlib import Path

ORDERS, ANSWERS = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever prints

import psutil  # noqa: E402
import steps  # noqa: E402

from scheduler.core.observations import HasFailed, HasSucceeded  # noqa: E402
from scheduler.core.specs import Function, Resources  # noqa: E402
from scheduler.errors import RunnerUnavailableError  # noqa: E402
from scheduler.runners.base_runner import Attempt, OutputOrder  # noqa: E402
from scheduler.runners.pandaidds_runner import PanDAiDDSRunner  # noqa: E402


class Drive:
    """One runner, and how often it rang."""

    def __init__(self):
        self.runner, self.rings, self.handlers = None, [], list(logging.getLogger().handlers)

    def open(self, **arguments):
        self.runner = PanDAiDDSRunner(source_dir=str(Path(__file__).parent), **arguments)
        self.runner.on_wake(lambda: self.rings.append(time.time()))

    def submit(self, attempts):
        answer = self.runner.submit([attempt(**each) for each in attempts])
        return {label: each if isinstance(each, str) else {"refused": str(each)} for label, each in answer.items()}

    def poll(self, attempts):
        return {label: picture(each) for label, each in self.runner.poll(attempts).items()}

    def cancel(self, attempts):
        self.runner.cancel(attempts)

    def find(self, labels):
        return self.runner.find(labels)

    def figures(self):
        process = psutil.Process()
        return {
            "threads": threading.active_count(),
            "connections": len([each for each in process.net_connections() if each.status == "ESTABLISHED"]),
            "cpu_s": time.process_time(),
            "rings": self.rings,
            "logging is as it was": logging.getLogger().handlers == self.handlers,
        }

    def close(self):
        self.runner.close()


def attempt(label, function, arguments, *, output=None, resources=None, takes_mapping=False, **more):
    return Attempt(
        label=label,
        payload=Function(getattr(steps, function), takes_mapping),
        arguments=arguments,
        directory=Path("run", "trials", label),
        resources=Resources(**(resources or {})),
        output=None if output is None else OutputOrder(**output),
        **more,
    )


def picture(seen):
    match seen:
        case HasSucceeded(result):
            return ["succeeded", result]
        case HasFailed(failure):
            return ["failed", str(failure.cause), failure.message]
        case _:
            return [type(seen).__name__]


def main():
    drive = Drive()
    for line in ORDERS:
        order = json.loads(line)
        try:
            answer = getattr(drive, order.pop("do"))(**order)
        except RunnerUnavailableError as error:
            answer = {"unavailable": str(error)}
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
