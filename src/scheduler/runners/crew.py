"""One life of a pilot process, and the orders that were given to it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, Observation, WasCancelled
from scheduler.runners.launch import Launcher, PilotProcess
from scheduler.runners.limit_watch import Guard, LimitWatch
from scheduler.runners.orders import (
    Command,
    LoadedFunction,
    Order,
    PickledFunction,
    ShippedFunction,
    Target,
    describe_target,
    encode_target,
)
from scheduler.runners.outcomes import describe_exit, judge_command, judge_function, tail
from scheduler.runners.process_tree import is_child, kill_tree

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """An order under way."""

    order: Order
    guard: Guard
    verdict: Observation | None = None

    @property
    def pid(self) -> int | None:
        """Its process, once there is one."""
        return self.guard.pid

    def judge(self, status: int) -> Observation:
        """How it ended. A verdict holds for a job that was killed; one that was faster keeps its own outcome."""
        if self.verdict is not None and status < 0:
            return self.verdict
        judge = judge_command if isinstance(self.order.target, Command) else judge_function
        return judge(
            status,
            results=self.order.results or self.order.directory,
            log=self.order.log,
            name=describe_target(self.order.target),
        )


class Crew:
    """One life of a pilot process, with the orders that were given to it.

    Two locks, because a write may have to wait until the process reads: ``_lock`` for the state, never held during
    input or output, and ``_writing`` so that lines stay whole.
    """

    def __init__(
        self,
        launch: Launcher,
        watch: LimitWatch,
        on_started: Callable[[str], None],
        on_ended: Callable[[str, Observation], None],
    ) -> None:
        self._launch = launch
        self._watch = watch
        self._on_started = on_started
        self._on_ended = on_ended
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._defined: dict[PickledFunction | ShippedFunction, str] = {}
        self._is_occupied = True  # starting, or loading a function: it does not listen
        self._worker_pid = 0  # known when it is ready; the process that was started may be a parent of it
        self._is_gone = False
        self._process: PilotProcess | None = None
        self._start_error: OSError | None = None
        try:
            self._process = launch.start()
        except OSError as error:
            self._start_error = error
        self._reader = threading.Thread(target=self._attend, name="scheduler-pilot", daemon=True)

    def enlist(self, job: Job) -> bool:
        """Take a job in; False when the process has gone and cannot take any more."""
        with self._lock:
            if self._is_gone:
                return False
            self._jobs[job.order.key] = job
            self._watch.add(job.guard)
            if self._reader.ident is None:  # after the first job, so that this one sees a process that cannot start
                self._reader.start()
            return True

    def send(self, target: Target, request: Mapping[str, object]) -> None:
        """Write an order whose job is enlisted."""
        with self._writing:
            match target:
                case Command(argv=argv):
                    self._write({**request, "argv": argv})
                case LoadedFunction(name=name):
                    self._write({**request, "target": name})
                case PickledFunction() | ShippedFunction():
                    self._write({**request, "target": self._define(target)})
                case _:
                    assert_never(target)

    def _define(self, target: PickledFunction | ShippedFunction) -> str:
        """The name of a target in the process, which is told about it the first time."""
        name = self._defined.get(target)
        if name is None:
            name = self._defined[target] = f"target {len(self._defined)}"
            self._write({"do": "define", "target": name, **encode_target(target)})
        return name

    def kill(self, key: str, verdict: Observation) -> None:
        """End a job; the first verdict given to it counts."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                return
            job.verdict = job.verdict or verdict
            is_pointless = self._is_occupied and all(each.verdict is not None for each in self._jobs.values())
            self._is_gone = self._is_gone or is_pointless  # nobody may join a process that is about to be killed
        if self._process is None:
            return
        if is_pointless:
            kill_tree(self._process.pid)
        elif job.pid is not None:
            if is_child(job.pid, parent=self._worker_pid):
                kill_tree(job.pid)
        else:
            with self._writing:
                self._write({"do": "kill", "job": key})

    def dismiss(self, patience_s: float = 2.0) -> None:
        """End everything and wait for it."""
        with self._lock:
            for job in self._jobs.values():
                job.verdict = job.verdict or WasCancelled()
            is_listening = not self._is_occupied
        if self._process is None:
            return
        if is_listening and self._writing.acquire(timeout=patience_s):
            self._hang_up()
            self._writing.release()
            self._join(patience_s)
        if self._reader is not threading.current_thread() and self._reader.is_alive():
            kill_tree(self._process.pid)
            self._join(patience_s)

    def _join(self, patience_s: float) -> None:
        if self._reader is not threading.current_thread():
            self._reader.join(patience_s)

    def _hang_up(self) -> None:
        self._write({"do": "leave"})  # a fork of the program may hold the pipe open, so that closing it is not enough
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _write(self, request: Mapping[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it has died: the reader notices and tells
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _attend(self) -> None:
        """Listen to the process until it has gone; then tell what became of its jobs."""
        status = 1
        if self._process is not None and self._process.stdout is not None:
            with self._process.stdout as reports:
                for line in reports:
                    self._take(line)
            status = self._process.wait()
            with self._writing:
                self._hang_up()
        with self._lock:
            self._is_gone = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
        for job in jobs:
            if job.pid is not None:
                kill_tree(job.pid)
        for job in jobs:
            self._watch.remove(job.guard)
            self._tell(self._on_ended, job.order.key, job.verdict or HasFailed(self._explain_death(job, status)))

    def _take(self, line: bytes) -> None:
        try:
            report = json.loads(line)
            kind = report["report"]
        except (ValueError, TypeError, KeyError):
            with self._launch.log.open("ab") as log:  # printed by what was started before the worker
                log.write(line)
            return
        match kind:
            case "started":
                self._note_start(report["job"], report["pid"])
            case "ended":
                self._note_end(report["job"], lambda job: job.judge(report["status"]))
            case "refused":
                self._note_end(report["job"], lambda job: _refusal(job, report["message"]))
            case "ready":
                self._worker_pid = report["pid"]
                self._is_occupied = False
            case "loading" | "loaded":
                self._is_occupied = kind == "loading"

    def _note_start(self, key: str, pid: int) -> None:
        with self._lock:
            job = self._jobs[key]
            job.guard.pid = pid
            is_doomed = job.verdict is not None
        if is_doomed:
            kill_tree(pid)
        self._tell(self._on_started, key)

    def _note_end(self, key: str, judge: Callable[[Job], Observation]) -> None:
        with self._lock:
            job = self._jobs.pop(key)
        self._watch.remove(job.guard)
        self._tell(self._on_ended, key, judge(job))

    def _explain_death(self, job: Job, status: int) -> Failure:
        log = self._launch.log
        name = describe_target(job.order.target)
        cause = Cause.ENVIRONMENT if job.pid is None and self._is_occupied else Cause.LOST
        if self._start_error is not None:
            message = f"the worker of {name} cannot be started: {self._start_error}"
        elif cause is Cause.ENVIRONMENT:
            message = f"the worker process {describe_exit(status)} before {name} was loaded; it said last: {tail(log)}"
        else:
            message = (
                f"the worker process {describe_exit(status)} while it had {name} in hand; it said last: {tail(log)}"
            )
        with contextlib.suppress(OSError), job.order.log.open("ab") as file:
            file.write(f"{message}\n".encode())
        return Failure(cause, message, str(job.order.log))

    def _tell(self, callback: Callable[..., None], *facts: object) -> None:
        try:
            callback(*facts)
        except Exception:
            logger.exception("a listener of a pilot failed on %s", facts[0])


def _refusal(job: Job, message: str) -> Observation:
    return job.verdict or HasFailed(Failure(Cause.LOST, message, str(job.order.log)))
