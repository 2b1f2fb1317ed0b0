"""JEDI's side of the small PanDA: task parameters become jobs, jobs become a task status."""

from __future__ import annotations

import itertools
import logging
import math
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pilot import Job, Node

logger = logging.getLogger(__name__)

TERMINAL = frozenset({"done", "finished", "failed", "aborted", "broken"})
_REQUIRED = (
    "taskName",
    "userName",
    "vo",
    "prodSourceLabel",
    "taskType",
    "processingType",
    "transPath",
    "jobParameters",
)
_FIRST_TASK_ID = 1001
_LOOK_EVERY_S = 0.05


class RefusedError(Exception):
    """The request is understood and refused; the text says why."""


@dataclass(frozen=True)
class Pace:
    """How fast things go, in seconds.

    Attributes:
        young_s: How long a new task is unknown to the status call.
        queued_s: How long its jobs wait before they run.
        kill_s: How long a kill is registered before it is carried out.
        closing_s: How long a task takes from its last job's end to its final status.
    """

    young_s: float
    queued_s: float
    kill_s: float
    closing_s: float


@dataclass
class Task:
    """A task.

    Attributes:
        task_id: The jediTaskID.
        parameters: As they were submitted.
        parent_id: The task to wait for.
        history: Every status with the time when it began.
        failures: Why attempts failed.
        jobs: All attempts.
        kill: Set when it is to end.
        lock: Held while the history changes.
        numbers: Those of the attempts, in the names of output files.
    """

    task_id: int
    parameters: dict[str, Any]
    parent_id: int | None
    submitted_at: float = field(default_factory=time.time)
    history: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    kill: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def status(self) -> str:
        """Where it is now."""
        return self.history[-1][1]

    def become(self, status: str) -> None:
        """Write a status down; jobs that start together say the same."""
        with self.lock:
            if not self.history or self.status != status:
                logger.info("task %d: %s", self.task_id, status)
                self.history.append((time.time(), status))

    def told(self) -> dict[str, Any]:
        """What a test may see."""
        return {
            "task_id": self.task_id,
            "parent_id": self.parent_id,
            "parameters": self.parameters,
            "status": self.status,
            "history": self.history,
            "failures": self.failures,
            "attempts": len(self.jobs),
        }


class Jedi:
    """Takes tasks and runs their jobs on a node with so many slots."""

    def __init__(self, node: Node, pace: Pace, slots: int) -> None:
        self._node, self._pace = node, pace
        self._slots = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._tasks: dict[int, Task] = {}
        self._ids = itertools.count(_FIRST_TASK_ID)
        self._lock = threading.Lock()

    def submit(self, parameters: dict[str, Any], parent_id: int | None) -> int:
        """Take a task.

        Raises:
            RefusedError: Something is missing.
        """
        missing = [name for name in _REQUIRED if name not in parameters]
        if missing:
            raise RefusedError(f"missing task parameters: {', '.join(missing)}")
        with self._lock:
            task = Task(next(self._ids), parameters, parent_id)
            task.become("registered")
            self._tasks[task.task_id] = task
        threading.Thread(target=self._follow, args=(task,), name=f"task-{task.task_id}", daemon=True).start()
        return task.task_id

    def status(self, task_id: int) -> str:
        """The status of a task.

        Raises:
            RefusedError: There is no such task, or it is too young to be known.
        """
        task = self._known(task_id)
        if time.time() < task.submitted_at + self._pace.young_s:
            raise RefusedError("task not found")
        return task.status

    def kill(self, task_id: int, user: str) -> None:
        """Register that a task is to be killed.

        Raises:
            RefusedError: There is no such task, it has ended, or it belongs to somebody else.
        """
        task = self._known(task_id)
        if task.parameters["userName"] != user:
            raise RefusedError("not the task owner or no production role")
        if task.status in TERMINAL:
            raise RefusedError(f"command rejected: the task is {task.status}")
        threading.Timer(self._pace.kill_s, task.kill.set).start()

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks, in order."""
        with self._lock:
            return [task.told() for task in self._tasks.values()]

    def _known(self, task_id: int) -> Task:
        with self._lock:
            if task_id not in self._tasks:
                raise RefusedError("task not found")
            return self._tasks[task_id]

    def _follow(self, task: Task) -> None:
        """The life of a task, in a thread of its own."""
        try:
            task.become(self._live(task))
        except Exception:
            logger.exception("task %d", task.task_id)
            task.become("broken")

    def _live(self, task: Task) -> str:
        for dataset in _outputs(task.parameters):
            self._node.catalogue.create(dataset, task.task_id)
        task.become("defined")
        if not self._wait_for_parent(task):
            return "aborted" if task.kill.is_set() else "broken"
        if not all(self._node.catalogue.has(dataset) for dataset in _inputs(task.parameters)):
            return "broken"
        task.become("ready")
        if task.kill.wait(self._pace.queued_s):
            return "aborted"
        succeeded, failed = self._run_jobs(task)
        if task.kill.is_set():
            task.become("aborting")
            return "aborted"
        time.sleep(self._pace.closing_s)
        return "done" if not failed else "finished" if succeeded else "failed"

    def _wait_for_parent(self, task: Task) -> bool:
        if task.parent_id is None:
            return True
        parent = self._known(task.parent_id)
        task.become("pending")
        while parent.status not in TERMINAL:
            if task.kill.wait(_LOOK_EVERY_S):
                return False
        return parent.status in {"done", "finished"}

    def _run_jobs(self, task: Task) -> tuple[int, int]:
        """How many jobs succeeded and failed, each after as many attempts as the task grants."""
        parts = list(_parts(task.parameters, self._node))
        futures = [self._slots.submit(self._run_part, task, part) for part in parts]
        while not all(future.done() for future in futures):
            if task.kill.wait(_LOOK_EVERY_S):
                task.become("aborting")
                for job in list(task.jobs):
                    job.kill()
        outcomes = [future.result() for future in futures]
        return outcomes.count(True), outcomes.count(False)

    def _run_part(self, task: Task, part: Mapping[str, Any]) -> bool:
        for _ in range(int(task.parameters.get("maxAttempt") or 1)):
            if task.kill.is_set():
                return False
            number = next(task.numbers)
            job = _job(task, part, number)
            task.jobs.append(job)
            if task.kill.is_set():
                job.kill()
            task.become("running")
            why = job.run(self._node)
            if why is None:
                return True
            task.failures.append(f"{job.name}: {why}")
        return False


def _templates(parameters: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in parameters["jobParameters"] if each.get("param_type") == kind]


def _inputs(parameters: Mapping[str, Any]) -> list[str]:
    return [each["dataset"] for each in _templates(parameters, "input")]


def _outputs(parameters: Mapping[str, Any]) -> list[str]:
    return [each["dataset"] for each in _templates(parameters, "output")]


def _parts(parameters: Mapping[str, Any], node: Node) -> list[dict[str, Any]]:
    """What the jobs of a task are given: a pseudo file each, or a share of the input files."""
    events = parameters.get("nEvents")
    count = math.ceil(events / parameters["nEventsPerJob"]) if events else 1
    if not _inputs(parameters):
        files = parameters["pfnList"]
        return [{"file": file} for file in files] if len(files) > 1 else [{"file": files[0]}] * count
    shares: list[dict[str, Any]] = [{"files": {}} for _ in range(count)]
    for template in _templates(parameters, "input"):
        names = [name for name in node.catalogue.files(template["dataset"]) if not re.search(template["exclude"], name)]
        for index, share in enumerate(shares):
            share["files"][template["dataset"]] = names[index::count]
    return shares


def _job(task: Task, part: Mapping[str, Any], number: int) -> Job:
    """A job: the values of all job parameters in a row, with the placeholders filled in."""
    words, outputs = [], {}
    files = part.get("files", {})
    for each in task.parameters["jobParameters"]:
        value = each["value"].replace("${SN/P}", f"{number:06d}")
        if each.get("param_type") == "input":
            value = value.replace("${IN/T}", str(files[each["dataset"]]))
        else:
            value = value.replace("${IN/T}", part.get("file", "pseudo_file"))
        if each.get("param_type") == "output":
            outputs[each["dataset"]] = value
        words.append(value)
    return Job(
        task_id=task.task_id,
        name=f"{task.task_id}/{number:06d}",
        parameters=" ".join(words),
        inputs=files,
        outputs=outputs,
        walltime_s=float(task.parameters.get("maxWalltime") or 7 * 86_400),
    )
