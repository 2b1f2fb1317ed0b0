"""Where the functions of a local runner run: fresh interpreters, forks of the program, or its threads."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, Observation, WasCancelled
from scheduler.errors import ConfigurationError
from scheduler.runners.launch import Fork, Launch, worker_command
from scheduler.runners.limit_watch import Guard, LimitWatch
from scheduler.runners.orders import LoadedFunction, Order, PickledFunction, Target, describe_target
from scheduler.runners.outcomes import ERROR_FILE, RESULT_FILE, failure_from
from scheduler.runners.pilot import Pilot
from scheduler.runners.unpicklable import name_offender
from scheduler.worker import describe_error, run_function, write_json

logger = logging.getLogger(__name__)

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class Surroundings:
    """What the backends of a runner share. The directory is made when it is first asked for.

    Args:
        tmp_dir: Where the directory is made; None for the system's place.
        threads_per_core: How many threads numerical libraries may use for each core of a job.
        on_started: Called with an order's key when it runs. Never while a lock of the backend is held.
        on_ended: Called once with an order's key and outcome; in the same way.

    Attributes:
        watch: Enforces the limits.
    """

    def __init__(
        self,
        *,
        tmp_dir: Path | None,
        threads_per_core: int,
        on_started: Callable[[str], None],
        on_ended: Callable[[str, Observation], None],
    ) -> None:
        self._tmp_dir = tmp_dir
        self._threads_per_core = threads_per_core
        self.on_started = on_started
        self.on_ended = on_ended
        self.watch = LimitWatch()
        self._lock = threading.Lock()
        self._directory: Path | None = None

    @property
    def directory(self) -> Path:
        """Where worker processes live, and their logs. Removed by :meth:`close`, or else when the program ends."""
        with self._lock:
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="scheduler-", dir=self._tmp_dir))
                weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
            return self._directory

    def close(self) -> None:
        """Stop watching and remove the directory. May be called twice."""
        self.watch.close()
        with self._lock:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def environment(self, cores: int) -> dict[str, str]:
        """Variables that bound the threads of numerical libraries, as far as the user has not set them."""
        threads = str(self._threads_per_core * cores)
        return {name: threads for name in _THREAD_VARIABLES if name not in os.environ}

    def start_pilot(self, launch: Launch | Fork, on_ended: Callable[[str, Observation], None] | None = None) -> Pilot:
        """A pilot whose news go where those of the runner go."""
        return Pilot(launch, watch=self.watch, on_started=self.on_started, on_ended=on_ended or self.on_ended)


class Backend(Protocol):
    """Runs the functions of a local runner. The runner counts the slots."""

    def prepare(self, call: Callable[..., object], name: str) -> Target:
        """The target of orders for a function.

        Raises:
            ConfigurationError: This backend cannot run it.
        """

    def run(self, order: Order) -> None:
        """Run an order whose target was prepared here."""

    def kill(self, key: str, verdict: Observation) -> None:
        """End a job; harmless when there is none."""

    def close(self) -> None:
        """End everything. May be called twice."""


class FreshInterpreters:
    """One pilot per function, in an interpreter of its own that gets the function by value (``backend="loky"``)."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._lock = threading.Lock()
        self._targets: dict[int, tuple[Callable[..., object], PickledFunction]] = {}
        self._pilots: dict[tuple[Target, int], Pilot] = {}

    def prepare(self, call: Callable[..., object], name: str) -> Target:
        """See :meth:`Backend.prepare`. A function is pickled once, as it is now."""
        known = self._targets.get(id(call))
        if known is None:
            # The function is kept with its pickle, so that no other one can get its id.
            known = self._targets[id(call)] = (call, PickledFunction(_pickle(call, name), _search_path(), name))
        return known[1]

    def run(self, order: Order) -> None:
        """See :meth:`Backend.run`."""
        self._pilot(order.target, order.resources.cores or 1).run(order)

    def kill(self, key: str, verdict: Observation) -> None:
        """See :meth:`Backend.kill`."""
        with self._lock:
            pilots = list(self._pilots.values())
        for pilot in pilots:
            pilot.kill(key, verdict)

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        with self._lock:
            pilots = list(self._pilots.values())
        for pilot in pilots:
            pilot.close()

    def _pilot(self, target: Target, cores: int) -> Pilot:
        """Libraries count their threads when they are loaded, so a pilot serves one number of cores."""
        with self._lock:
            pilot = self._pilots.get((target, cores))
            if pilot is None:
                directory = self._surroundings.directory
                launch = Launch(
                    command=worker_command(),
                    directory=directory,
                    log=directory / f"pilot-{len(self._pilots)}.log",
                    environment={**os.environ, **self._surroundings.environment(cores)},
                )
                pilot = self._pilots[target, cores] = self._surroundings.start_pilot(launch)
            return pilot


def _pickle(call: Callable[..., object], name: str) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(call)
    except Exception as error:  # user objects may raise whatever they like when they are pickled
        raise ConfigurationError(
            f"function '{name}' cannot be sent to a worker process: {name_offender(call)} cannot be pickled "
            f"({type(error).__name__}: {error}); make it inside the function, or use backend='multiprocessing'"
        ) from error
    return data


def _search_path() -> tuple[str, ...]:
    return tuple(str(Path(entry).absolute()) for entry in sys.path)


class ForksOfProgram:
    """A fork of the program for each job: it sees every object that the program has (``backend="multiprocessing"``)."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._lock = threading.Lock()
        self._pilots: dict[str, Pilot] = {}

    def prepare(self, call: Callable[..., object], name: str) -> Target:
        """See :meth:`Backend.prepare`. Every function is fine."""
        return LoadedFunction(call, name)

    def run(self, order: Order) -> None:
        """See :meth:`Backend.run`."""
        assert isinstance(order.target, LoadedFunction)  # noqa: S101 - from prepare()
        launch = Fork({order.target.name: order.target.call}, self._surroundings.directory / "forks.log")
        pilot = self._surroundings.start_pilot(launch, on_ended=self._ended)
        with self._lock:
            self._pilots[order.key] = pilot
        try:
            pilot.run(order)
        except BaseException:
            with self._lock:
                del self._pilots[order.key]
            raise

    def kill(self, key: str, verdict: Observation) -> None:
        """See :meth:`Backend.kill`."""
        with self._lock:
            pilot = self._pilots.get(key)
        if pilot is not None:
            pilot.kill(key, verdict)

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        with self._lock:
            pilots = list(self._pilots.values())
        for pilot in pilots:
            pilot.close()

    def _ended(self, key: str, outcome: Observation) -> None:
        with self._lock:
            pilot = self._pilots.pop(key)
        pilot.close()
        self._surroundings.on_ended(key, outcome)


@dataclass(eq=False, slots=True)
class _Thread:
    order: Order
    guard: Guard
    is_settled: bool = field(default=False)


class Threads:
    """A thread of the program for each job (``backend="threading"``).

    A thread cannot be ended from outside: a job that is cancelled or over its time is given up, and its thread goes on
    until the function returns.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._lock = threading.Lock()
        self._jobs: dict[str, _Thread] = {}

    def prepare(self, call: Callable[..., object], name: str) -> Target:
        """See :meth:`Backend.prepare`. Every function is fine."""
        return LoadedFunction(call, name)

    def run(self, order: Order) -> None:
        """See :meth:`Backend.run`."""
        job = _Thread(order, Guard(order.resources, lambda _, words: self._exceed(order, words), pid=os.getpid()))
        with self._lock:
            self._jobs[order.key] = job
        self._surroundings.watch.add(job.guard)
        threading.Thread(target=self._work, args=(job,), name=f"scheduler-job-{order.key}", daemon=True).start()

    def kill(self, key: str, verdict: Observation) -> None:
        """See :meth:`Backend.kill`."""
        with self._lock:
            job = self._jobs.get(key)
        if job is not None:
            self._settle(job, verdict)

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            self._settle(job, WasCancelled())

    def _work(self, job: _Thread) -> None:
        self._surroundings.on_started(job.order.key)
        self._settle(job, _call_here(job.order))

    def _exceed(self, order: Order, words: str) -> None:
        message = f"{describe_target(order.target)} {words} (its thread cannot be ended and goes on)"
        self.kill(order.key, HasFailed(Failure(Cause.TIMEOUT, message, str(order.log))))

    def _settle(self, job: _Thread, outcome: Observation) -> None:
        with self._lock:
            if job.is_settled:
                return
            job.is_settled = True
            del self._jobs[job.order.key]
        self._surroundings.watch.remove(job.guard)
        self._surroundings.on_ended(job.order.key, outcome)


def _call_here(order: Order) -> Observation:
    assert isinstance(order.target, LoadedFunction)  # noqa: S101 - from prepare()
    results = order.results or order.directory
    arguments = copy.deepcopy(dict(order.arguments))
    try:
        result = run_function(order.target.call, arguments, as_mapping=order.as_mapping)
    except BaseException as error:  # noqa: BLE001 - whatever user code does is told, not raised
        facts = describe_error(error)
        order.log.write_text(facts["traceback"], encoding="utf-8")
        write_json(str(results / ERROR_FILE), facts)
        return HasFailed(failure_from(facts, log=order.log, name=order.target.name))
    write_json(str(results / RESULT_FILE), result)
    order.log.touch()
    return HasSucceeded(json.loads(json.dumps(result)))
