"""Runs jobs on the cores of this machine."""

from __future__ import annotations

import bisect
import itertools
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.specs import Resources, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.panda.catalogues import choose_catalogue
from scheduler.runners.base_runner import Attempt, BaseRunner, JobEnvironment
from scheduler.runners.commands import ENGINES
from scheduler.runners.input_staging import InputStaging
from scheduler.runners.local_config import BACKENDS, BackendName, LocalConfig

if TYPE_CHECKING:
    from scheduler.runners.orders import Order
    from scheduler.runners.workshop import Workshop

logger = logging.getLogger(__name__)

_CONFIG_KEYS = {
    "container_engine": f"the first one installed of {', '.join(ENGINES)}",
    "tmp_dir": "the system's directory for temporary files",
    "catalogue": "'local'",
    "catalogue_dir": "datasets in the run directory",
}


@dataclass(eq=False, slots=True)
class _Entry:
    """An attempt that was submitted.

    Attributes:
        turn: Which one goes first: the lowest.
        native_id: The runner's name of it.
        slots: Cores it takes.
        order: What is to be run; None while its inputs are staged, and once it has ended.
        observation: What :meth:`JobLibRunner.poll` says about it.
        is_unwanted: Whether it was cancelled.
    """

    turn: tuple[int, int]
    native_id: str
    slots: int
    order: Order | None
    observation: Observation
    is_unwanted: bool = False

    @property
    def is_staging(self) -> bool:
        """Whether its input datasets are on their way."""
        return self.order is None and isinstance(self.observation, IsQueued)


class JobLibRunner(BaseRunner):
    """Runs functions, scripts and containers on this machine, ``n_jobs`` cores at a time.

    Nothing is started, and no directory made, before the first job. Every job has its own working directory, log and
    process group (see ``backend`` for the exception), and dies as a whole: when it is cancelled, over its limits, or
    when this program ends, however it ends.

    Backends, for functions; scripts and containers are processes with each of them:

    * ``"loky"``: worker processes with a fresh interpreter, which get the function by value. It is loaded once and each
      job is a fork of that, so that a job starts in milliseconds and cannot disturb the next one.
    * ``"multiprocessing"``: each job is a fork of this program and sees all its objects; nothing needs to be pickled.
      The usual hazard of forking applies: a lock that another thread holds at that moment is never released in the job,
      so a library that works with threads of its own (a logger writing to a queue, a GPU, an open connection) may hang.
    * ``"threading"``: threads of this program. They share its memory, working directory, environment and output, have
      no memory limit, and cannot be ended: a job that is cancelled or over its time is given up at once, its thread
      goes on until the function returns.

    A step may read datasets: their files are put into the job's working directory before it runs, and it takes no core
    until they are there. Not with ``"threading"``, whose jobs have no directory of their own. Datasets are made by a
    :class:`PanDAiDDSRunner`.

    Args:
        n_jobs: Cores to use, as joblib counts: -1 for all, -2 for all but one, and so on.
        backend: Where functions run.
        config: ``container_engine`` (``docker``, ``podman``, ``singularity`` or ``apptainer``; default: the first one
            installed), ``tmp_dir`` (where worker processes live; default: the system's), ``catalogue`` (where datasets
            are read from: ``"local"``, the default, or ``"rucio"``) and ``catalogue_dir`` (the directory of a local
            one; default: ``datasets`` in the run directory, where the embedded site puts them).

    Raises:
        ConfigurationError: An argument or a key of ``config`` is wrong.

    Example::

        runner = JobLibRunner(n_jobs=4)
        scheduler = AxScheduler(ax_client, runner)
    """

    runs_here = True
    stages_inputs = True

    def __init__(
        self, n_jobs: int = -1, backend: BackendName = "loky", config: Mapping[str, object] | None = None
    ) -> None:
        if backend not in BACKENDS:
            raise ConfigurationError(f"backend is {backend!r}; the backends are {', '.join(BACKENDS)}")
        self.n_jobs = n_jobs
        self.backend = backend
        self._slots = _count_slots(n_jobs)
        self.capacity = self.waiting_room = self._slots
        self._config = _parse_config(config or {})
        self._staging = InputStaging(choose_catalogue(config or {}))
        self._serial = itertools.count(1)
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._queue: list[_Entry] = []
        self._free = self._slots
        self._workshop: Workshop | None = None

    def __repr__(self) -> str:
        return f"JobLibRunner(n_jobs={self.n_jobs}, backend={self.backend!r})"

    def check(self, step: StepSpec) -> None:
        """See :meth:`BaseRunner.check`."""
        try:
            _refuse_output(step.output)
            self._check_inputs(step.inputs)
            self._check_resources(step.resources)
            self._open_workshop().check(step.payload)
        except ConfigurationError as error:
            raise ConfigurationError(f"step '{step.name}' cannot run on {self!r}: {error}") from error

    def environment(self) -> JobEnvironment:
        """See :meth:`BaseRunner.environment`."""
        return JobEnvironment("this machine", is_ours=True)

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:
        """See :meth:`BaseRunner.contents`."""
        return self._staging.contents(attempt)

    def submit(self, batch: Sequence[Attempt]) -> dict[str, str | Failure]:
        """See :meth:`BaseRunner.submit`. A label that is known already is not run again."""
        workshop = self._open_workshop()
        answer: dict[str, str | Failure] = {}
        for attempt in batch:
            answer[attempt.label] = self._admit(attempt, workshop)
            self._start_waiting(workshop)  # the first ones run while the files of the others are written
        return answer

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """See :meth:`BaseRunner.poll`."""
        with self._lock:
            return {label: entry.observation for label, entry in self._known(attempts).items()}

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """See :meth:`BaseRunner.cancel`."""
        with self._lock:
            known = self._known(attempts)
            for entry in known.values():
                entry.is_unwanted = True
                if entry in self._queue:
                    self._queue.remove(entry)
                    entry.observation, entry.order = WasCancelled(), None
                elif entry.is_staging:
                    entry.observation = WasCancelled()
            workshop = self._workshop
        if workshop is not None:
            for label in known:
                workshop.kill(label, WasCancelled())
            self._start_waiting(workshop)
        self.wake()

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """The native ids of those of these labels that this very object was given."""
        with self._lock:
            return {label: self._entries[label].native_id for label in labels if label in self._entries}

    def close(self) -> None:
        """See :meth:`BaseRunner.close`. What is submitted later starts new workers."""
        with self._lock:
            for entry in [*self._queue, *(each for each in self._entries.values() if each.is_staging)]:
                entry.observation, entry.order = WasCancelled(), None
            self._queue.clear()
            workshop, self._workshop = self._workshop, None
        self._staging.close()
        if workshop is not None:
            workshop.close()
            self.wake()

    def _check_inputs(self, inputs: Mapping[str, str]) -> None:
        if not inputs:
            return
        if self.backend == "threading":
            raise ConfigurationError(
                "it reads a dataset, and a thread has no directory of its own for the files; use backend='loky'"
            )
        self._staging.check()

    def _check_resources(self, resources: Resources) -> None:
        if (resources.cores or 1) > self._slots:
            raise ConfigurationError(f"it wants {resources.cores} cores, but n_jobs is {self._slots}")
        if resources.memory_mb is not None and self.backend == "threading":
            raise ConfigurationError("a thread cannot have a memory limit; use backend='loky'")

    def _open_workshop(self) -> Workshop:
        from scheduler.runners.workshop import open_workshop

        with self._lock:
            if self._workshop is None:
                self._workshop = open_workshop(
                    self.backend,
                    self._config,
                    slots=self._slots,
                    on_started=self._note_start,
                    on_ended=self._note_end,
                )
            return self._workshop

    def _admit(self, attempt: Attempt, workshop: Workshop) -> str | Failure:
        """Prepare an attempt and put it into the queue."""
        with self._lock:
            known = self._entries.get(attempt.label)
        if known is not None:
            return known.native_id
        try:
            _refuse_output(attempt.output)
            self._check_resources(attempt.resources)
            order = None if attempt.inputs else workshop.make_order(attempt)
        except (ConfigurationError, OSError) as error:
            return _not_submitted(attempt, error)
        serial = next(self._serial)
        slots = attempt.resources.cores or 1
        entry = _Entry((attempt.trial, serial), f"{os.getpid()}.{serial}", slots, order, IsQueued())
        with self._lock:
            self._entries[attempt.label] = entry
            if order is not None:
                self._enqueue(entry)
        if order is None:
            self._staging.start(attempt, lambda outcome: self._note_staged(entry, outcome, workshop))
        return entry.native_id

    def _note_staged(self, entry: _Entry, outcome: Attempt | Failure, workshop: Workshop) -> None:
        """Queue an attempt whose inputs have arrived; unless it was cancelled meanwhile."""
        if isinstance(outcome, Attempt):
            try:
                order = workshop.make_order(outcome)
            except (ConfigurationError, OSError) as error:
                outcome = _not_submitted(outcome, error)
        with self._lock:
            if not entry.is_staging:
                return
            if isinstance(outcome, Failure):
                entry.observation = HasFailed(outcome)
            else:
                entry.order = order
                self._enqueue(entry)
        self._start_waiting(workshop)
        self.wake()

    def _enqueue(self, entry: _Entry) -> None:
        bisect.insort(self._queue, entry, key=lambda each: each.turn)

    def _start_waiting(self, workshop: Workshop) -> None:
        """Start what there is room for, by turns: narrow jobs do not overtake a wide one for ever."""
        while (entry := self._take_next()) is not None:
            order = entry.order
            assert order is not None  # noqa: S101 - it has not ended
            outcome = _start(order, workshop)
            if outcome is not None:
                self._settle(order.key, outcome)
                self.wake()
            elif entry.is_unwanted:  # cancelled while it was being handed over
                workshop.kill(order.key, WasCancelled())

    def _take_next(self) -> _Entry | None:
        with self._lock:
            if not self._queue or self._queue[0].slots > self._free:
                return None
            entry = self._queue.pop(0)
            self._free -= entry.slots
            return entry

    def _known(self, attempts: Mapping[str, str]) -> dict[str, _Entry]:
        entries = ((label, self._entries.get(label), native_id) for label, native_id in attempts.items())
        return {
            label: entry for label, entry, native_id in entries if entry is not None and entry.native_id == native_id
        }

    def _note_start(self, label: str) -> None:
        with self._lock:
            self._entries[label].observation = IsRunning()
        self.wake()

    def _note_end(self, label: str, outcome: Observation) -> None:
        self._settle(label, outcome)
        with self._lock:
            workshop = self._workshop
        if workshop is not None:
            self._start_waiting(workshop)
        self.wake()  # last: the engine, once awake, may hold the interpreter, and the place would stay empty meanwhile

    def _settle(self, label: str, outcome: Observation) -> None:
        with self._lock:
            entry = self._entries[label]
            entry.observation, entry.order = outcome, None
            self._free += entry.slots


def _start(order: Order, workshop: Workshop) -> Observation | None:
    """Start a job; the outcome if it is over already."""
    try:
        return None if workshop.run(order) else WasCancelled()
    except Exception as error:  # the arguments are the user's objects and may refuse to be pickled in any way
        logger.debug("the arguments of %s cannot be pickled", order.key, exc_info=True)
        message = f"the arguments cannot be sent to a worker process ({type(error).__name__}: {error})"
        return HasFailed(Failure(Cause.SUBMISSION, message))


def _refuse_output(output: object) -> None:
    if output is not None:
        raise ConfigurationError("it produces a dataset, which needs a PanDAiDDSRunner")


def _not_submitted(attempt: Attempt, error: Exception) -> Failure:
    return Failure(Cause.SUBMISSION, f"{attempt.payload.name} was not submitted: {error}")


def _count_slots(n_jobs: int) -> int:
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int):
        raise ConfigurationError(f"n_jobs is {n_jobs!r}; it must be a whole number, for example 4, or -1 for all cores")
    if n_jobs == 0:
        raise ConfigurationError("n_jobs is 0: nothing could ever run; use -1 for all cores")
    if n_jobs > 0:
        return n_jobs
    import loky

    return max(int(loky.cpu_count()) + 1 + n_jobs, 1)


def _parse_config(config: Mapping[str, object]) -> LocalConfig:
    unknown = sorted(set(config) - set(_CONFIG_KEYS))
    if unknown:
        keys = ", ".join(f"{name} (default: {default})" for name, default in _CONFIG_KEYS.items())
        raise ConfigurationError(f"JobLibRunner: config has no key {unknown[0]!r}; the keys are {keys}")
    engine, tmp_dir = config.get("container_engine"), config.get("tmp_dir")
    if engine is not None and engine not in ENGINES:
        raise ConfigurationError(f"JobLibRunner: container_engine is {engine!r}; it can be {', '.join(ENGINES)}")
    if tmp_dir is not None and not (isinstance(tmp_dir, str | os.PathLike) and Path(tmp_dir).is_dir()):
        raise ConfigurationError(f"JobLibRunner: tmp_dir is {tmp_dir!r}, which is no existing directory")
    return LocalConfig(engine, None if tmp_dir is None else Path(tmp_dir).absolute())
