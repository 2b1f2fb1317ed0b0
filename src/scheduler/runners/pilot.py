"""The driver's side of a pilot: a worker process that loads a function once and forks for each job.

A :class:`Pilot` starts ``worker.py`` when the first order comes, hands orders over, and tells what became of them as
observations. It outlives its process: when that dies, its jobs are reported and the next order starts a new one. Limits
of all pilots of a runner are enforced by one :class:`~scheduler.runners.limit_watch.LimitWatch`::

    watch = LimitWatch()
    launch = Launch(worker_command(), directory=template, log=template / "pilot.log")
    pilot = Pilot(launch, watch=watch, on_started=seen_running, on_ended=seen_ended)
    pilot.run(Order(key="t1", target=ShippedFunction(root, "prog.py", "prog", "objective"), arguments={"x": 0.5},
                    directory=work, log=logs / "job.log"))
    ...
    pilot.close()
    watch.close()
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, Observation, WasCancelled
from scheduler.runners.crew import Crew, Job
from scheduler.runners.launch import WORKER_FILE, Launch, Launcher, worker_command
from scheduler.runners.limit_watch import Guard, LimitWatch
from scheduler.runners.orders import (
    Command,
    LoadedFunction,
    Order,
    PickledFunction,
    ShippedFunction,
    Target,
    describe_target,
    encode_order,
)

__all__ = [
    "WORKER_FILE",
    "Command",
    "Launch",
    "LoadedFunction",
    "Order",
    "PickledFunction",
    "Pilot",
    "ShippedFunction",
    "Target",
    "worker_command",
]


class Pilot:
    """A worker process that runs orders, several at a time; the caller counts the slots.

    Thread-safe. The callbacks come from threads of the pilot's, never while a lock is held, and for each order exactly
    one ``on_ended``, as its last; it may call :meth:`run`. Nothing is started before the first order.

    How orders end (``Failure.log`` is the order's log; the pilot's last words are added to it when that died):

    * ``HasSucceeded`` with what the function returned, made of JSON types.
    * ``EXCEPTION``: it raised, or the command had another exit code than 0; ``RESULT``: it returned what is not JSON.
    * ``TIMEOUT``, ``MEMORY``: it was over its limit and its process tree was killed.
    * ``KILLED``: its process died by a signal or left without a result.
    * ``ENVIRONMENT``: the function could not be loaded, or the pilot process died before that was done.
    * ``LOST``: the pilot process died while the job ran; the job and its process group are killed.
    * the verdict given to :meth:`kill`.

    Args:
        launch: How the process is started.
        watch: Enforces the limits; shared by the pilots of a runner and closed by it.
        on_started: Called with the key when the job's process runs.
        on_ended: Called with the key and how it ended.
    """

    def __init__(
        self,
        launch: Launcher,
        *,
        watch: LimitWatch,
        on_started: Callable[[str], None],
        on_ended: Callable[[str, Observation], None],
    ) -> None:
        self._launch = launch
        self._watch = watch
        self._on_started = on_started
        self._on_ended = on_ended
        self._lock = threading.Lock()
        self._crew: Crew | None = None
        self._is_closed = False

    def run(self, order: Order) -> None:
        """Hand an order over; starts the process if none runs.

        Raises:
            TypeError: Arguments cannot be pickled (or whatever else their pickling raises); nothing was started.
            RuntimeError: The pilot is closed.
        """
        request = encode_order(order)
        job = Job(order, Guard(order.resources, lambda cause, words: self._exceed(order, cause, words)))
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the pilot is closed and cannot run '{order.key}'")
            if self._crew is None or not self._crew.enlist(job):
                self._crew = Crew(self._launch, self._watch, self._on_started, self._on_ended)
                self._crew.enlist(job)
            crew = self._crew
        crew.send(order.target, request)

    def kill(self, key: str, verdict: Observation | None = None) -> None:
        """End a job with all its processes; ``on_ended`` gives the verdict once it is dead (default: cancelled).

        Harmless for a job that has ended or was never ordered; a job that ended just before keeps its own outcome.
        """
        with self._lock:
            crew = self._crew
        if crew is not None:
            crew.kill(key, verdict or WasCancelled())

    def close(self) -> None:
        """Kill every job (they end as ``WasCancelled``) and the process. May be called twice; no orders after it."""
        with self._lock:
            self._is_closed = True
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.dismiss()

    def _exceed(self, order: Order, cause: Cause, words: str) -> None:
        message = f"{describe_target(order.target)} {words}; its processes were killed"
        self.kill(order.key, HasFailed(Failure(cause, message, str(order.log))))
