"""The embedded site: runs on this machine what would run on the grid, by the grid's rules.

One thread does everything that changes the state of the site; what happens elsewhere (a submission, a cancellation,
news of a pilot) is put into its inbox. Other threads only look at the observations.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import pickle
import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, Observation, WasCancelled
from scheduler.core.specs import Function, Resources
from scheduler.errors import DatasetError, ShippingError
from scheduler.panda.datasets import DatasetCatalogue
from scheduler.panda.explain import explain
from scheduler.panda.locate import FunctionLocation
from scheduler.panda.sandbox import Tarball
from scheduler.panda.selection import Selection
from scheduler.panda.slices import Slice
from scheduler.panda.station import Station
from scheduler.runners.base_runner import Attempt
from scheduler.runners.limit_watch import LimitWatch
from scheduler.runners.pilot import Order, ShippedFunction

logger = logging.getLogger(__name__)

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class SiteJob:
    """An attempt, ready for the site.

    Attributes:
        attempt: What the engine asked for.
        function: Its payload.
        location: Where the function is in the files that ship.
        selection: The files that ship.
        tarball: The same, packed.
        slices: The parts it runs as.
        resources: Its limits, none of them None; they hold for each slice.
        catalogue: Where its datasets are.
    """

    attempt: Attempt
    function: Function
    location: FunctionLocation
    selection: Selection
    tarball: Tarball
    slices: tuple[Slice, ...]
    resources: Resources
    catalogue: DatasetCatalogue

    @property
    def producer(self) -> str:
        """What is the same for every attempt at this job, also after a restart: what is called with which arguments."""
        arguments = repr(sorted(self.attempt.arguments.items())).encode()
        return f"{self.location.module}:{self.location.qualname}:{hashlib.sha256(arguments).hexdigest()[:16]}"


@dataclass(eq=False, slots=True)
class _Run:
    """A job on the site."""

    job: SiteJob
    station: Station
    cores: int
    waiting: deque[Slice]
    running: dict[str, Slice] = field(default_factory=dict)
    results: dict[int, object] = field(default_factory=dict)
    verdict: Observation | None = None

    @property
    def label(self) -> str:
        return self.job.attempt.label

    @property
    def produces(self) -> str | None:
        output = self.job.attempt.output
        return None if output is None else output.dataset


class EmbeddedSite:
    """Slots on this machine, and the jobs that wait for them.

    Thread-safe. Starts nothing before the first job.

    Args:
        slots: How many cores jobs may use together.
        directory: Where tarballs are unpacked.
        init_env: Lines of bash that run before the jobs.
        on_change: Called from any thread when an observation changed.
    """

    def __init__(self, *, slots: int, directory: Path, init_env: str, on_change: Callable[[], None]) -> None:
        self._slots = self._free = slots
        self._directory = directory
        self._init_env = init_env
        self._on_change = on_change
        self._watch = LimitWatch()
        self._stations: dict[str, Station] = {}  # by digest
        self._ready_stations: set[Station] = set()
        self._runs: dict[str, _Run] = {}  # in the order of submission; only those that are not over
        self._orders: dict[str, tuple[_Run, Slice]] = {}
        self._observations: dict[str, Observation] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._is_open = True
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------- from other threads

    def submit(self, job: SiteJob) -> None:
        """Take a job. It runs when there is room."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="embedded-site", daemon=True)
            self._thread.start()
        self._observations[job.attempt.label] = IsQueued()
        self._inbox.put(lambda: self._accept(job))

    def observe(self, label: str) -> Observation | None:
        """How an attempt is; None when it was never submitted here."""
        return self._observations.get(label)

    def cancel(self, label: str) -> None:
        """End an attempt with all its processes. Harmless when it is over or unknown."""
        self._inbox.put(lambda: self._cancel(label))

    def close(self) -> None:
        """End every job and remove the unpacked files. The site takes no jobs after it."""
        if self._thread is not None:
            self._inbox.put(self._shut_down)
            self._thread.join()
        self._watch.close()

    # --------------------------------------------------------------------------------------------- the site's thread

    def _work(self) -> None:
        while self._is_open:
            self._inbox.get()()

    def _accept(self, job: SiteJob) -> None:
        try:
            station = self._station_for(job)
        except (ShippingError, OSError) as error:
            failure = Failure(Cause.ENVIRONMENT, f"the files that ship could not be unpacked: {error}")
            self._show(job.attempt.label, HasFailed(failure))
            return
        cores = min(job.resources.cores or 1, self._slots)
        self._runs[job.attempt.label] = _Run(job, station, cores, deque(job.slices))
        self._fill()

    def _cancel(self, label: str) -> None:
        run = self._runs.get(label)
        if run is not None:
            self._end(run, WasCancelled())
            self._fill()

    def _shut_down(self) -> None:
        self._is_open = False
        for station in self._stations.values():
            station.close()
        for run in list(self._runs.values()):
            self._show(run.label, WasCancelled())

    # stations

    def _station_for(self, job: SiteJob) -> Station:
        digest = job.tarball.digest
        if digest not in self._stations:
            station = Station(
                job.tarball,
                directory=self._directory,
                init_env=self._init_env,
                watch=self._watch,
                on_started=lambda key: self._inbox.put(lambda: self._started(key)),
                on_ended=lambda key, outcome: self._inbox.put(lambda: self._ended(key, outcome)),
            )
            self._open(station, job)
            self._stations[digest] = station
        return self._stations[digest]

    def _open(self, station: Station, job: SiteJob) -> None:
        try:
            station.open(
                source=job.selection.root,
                cores=job.resources.cores or 1,
                patience=job.resources,
                on_ready=lambda failure: self._inbox.put(lambda: self._ready(station, failure)),
            )
        except (ShippingError, OSError):
            station.close()
            raise

    def _ready(self, station: Station, failure: Failure | None) -> None:
        if failure is None:
            self._ready_stations.add(station)
        else:
            # Forget the station, so that a later attempt tries again: the trouble may have been mended.
            self._stations = {digest: each for digest, each in self._stations.items() if each is not station}
            station.close()
            for run in [run for run in self._runs.values() if run.station is station]:
                self._end(run, HasFailed(failure))
        self._fill()

    # slices

    def _fill(self) -> None:
        """Start what there is room for, in the order of submission. A job that needs many slots is not overtaken."""
        for run in list(self._runs.values()):
            if run.station not in self._ready_stations or self._must_wait_for_inputs(run):
                continue
            while run.waiting and run.label in self._runs:
                if run.cores > self._free:
                    return
                self._start(run, run.waiting.popleft())

    def _must_wait_for_inputs(self, run: _Run) -> bool:
        """Whether a job on this site, submitted before this one, is still producing what this one reads."""
        inputs = set(run.job.attempt.inputs.values())
        earlier = itertools.takewhile(lambda other: other is not run, self._runs.values())
        return bool(inputs) and any(other.produces in inputs for other in earlier)

    def _start(self, run: _Run, part: Slice) -> None:
        key = f"{run.label}#{part.index + 1}"
        self._free -= run.cores
        run.running[key] = part
        self._orders[key] = (run, part)
        try:
            run.station.run(self._order(key, run, part))
        except DatasetError as error:
            self._could_not_start(key, Failure(Cause.ENVIRONMENT, f"the inputs could not be staged: {error}"))
        except OSError as error:
            self._could_not_start(key, Failure(Cause.ENVIRONMENT, f"the job could not be set up: {error}"))
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            self._could_not_start(key, Failure(Cause.SUBMISSION, f"the arguments cannot be sent: {error}"))

    def _could_not_start(self, key: str, failure: Failure) -> None:
        # Through the inbox: ending a job here would start the next one from within, and so on without end.
        self._inbox.put(lambda: self._ended(key, HasFailed(failure)))

    def _order(self, key: str, run: _Run, part: Slice) -> Order:
        """Make the slice's working directory and say what shall run in it."""
        job, station = run.job, run.station
        _clear(part)
        part.directory.mkdir(parents=True, exist_ok=True)
        station.copy_to(part.work)
        if job.attempt.output is not None:  # a file of this name that was shipped is not what the job made
            (part.work / job.attempt.output.file).unlink(missing_ok=True)
        staged = {name: job.catalogue.stage(dataset, part.work) for name, dataset in job.attempt.inputs.items()}
        arguments = {**job.attempt.arguments, **staged, **part.arguments}
        _write_parameters(part.directory / "parameters.json", arguments)
        location = job.location
        return Order(
            key=key,
            target=ShippedFunction(station.template, location.file, location.module, location.qualname),
            directory=part.work,
            log=part.log,
            arguments=arguments,
            as_mapping=job.function.takes_mapping,
            results=part.directory,
            template=station.template,
            resources=job.resources,
        )

    def _started(self, key: str) -> None:
        known = self._orders.get(key)
        if known is not None and self._observations[known[0].label] == IsQueued():
            self._show(known[0].label, IsRunning())

    def _ended(self, key: str, outcome: Observation) -> None:
        known = self._orders.pop(key, None)
        if known is None:
            return
        run, part = known
        del run.running[key]
        self._free += run.cores
        outcome = _judge(run.job, part, outcome)
        if isinstance(outcome, HasSucceeded):
            run.results[part.index] = outcome.result
            if not run.waiting and not run.running:
                self._finish(run)
        else:
            self._end(run, outcome)
        self._fill()

    # the end of a job

    def _end(self, run: _Run, verdict: Observation) -> None:
        """End a job without a result: nothing more of it starts, and what runs is killed first."""
        run.verdict = run.verdict or verdict
        run.waiting.clear()
        for key in run.running:
            run.station.kill(key, WasCancelled())
        if not run.running:
            self._finish(run)

    def _finish(self, run: _Run) -> None:
        """All slices are over: publish, show the outcome, clean up."""
        verdict = run.verdict or self._publish(run)
        self._runs.pop(run.label, None)
        if isinstance(verdict, HasSucceeded):
            for part in run.job.slices:
                shutil.rmtree(part.work, ignore_errors=True)
        self._show(run.label, verdict)

    def _publish(self, run: _Run) -> Observation:
        """Put the files of all slices into the dataset, and close it unless another job still writes to it."""
        job, output = run.job, run.job.attempt.output
        if output is not None:
            try:
                _add_to_dataset(job)
                if not any(other.produces == output.dataset for other in self._runs.values() if other is not run):
                    job.catalogue.close(output.dataset)
            except (DatasetError, OSError) as error:
                return HasFailed(Failure(Cause.ENVIRONMENT, f"the output could not be put into its dataset: {error}"))
        # As on the grid, where the results of the slices come in under one name: the last one counts.
        return HasSucceeded(run.results[len(job.slices) - 1])

    def _show(self, label: str, observation: Observation) -> None:
        self._observations[label] = observation
        self._on_change()


def _add_to_dataset(job: SiteJob) -> None:
    output, catalogue = job.attempt.output, job.catalogue
    if output is None:
        return
    if not catalogue.exists(output.dataset):
        catalogue.create(output.dataset)
    elif catalogue.is_closed(output.dataset):
        catalogue.reopen(output.dataset)
    replaced = catalogue.withdraw(output.dataset, job.producer)
    if replaced:
        logger.info("dataset '%s': an earlier attempt left %s, now replaced", output.dataset, ", ".join(replaced))
    if catalogue.files(output.dataset):
        logger.warning(
            "dataset '%s' gets files of more than one job; if its readers shall see those of one job only, put "
            "'#global_parameter_key' and '#job_id' into its name",
            output.dataset,
        )
    files = [part.work / output.file for part in job.slices]
    catalogue.add_numbered(output.dataset, files, name=Path(output.file).name, producer=job.producer)


def _judge(job: SiteJob, part: Slice, outcome: Observation) -> Observation:
    """The outcome of a slice as the user should see it."""
    match outcome:
        case HasFailed(failure):
            explained = explain(failure, results=part.directory, location=job.location, selection=job.selection)
            return HasFailed(_in_slice(job, part, explained))
        case HasSucceeded():
            missing = _missing_output(job, part)
            return outcome if missing is None else HasFailed(_in_slice(job, part, missing))
        case _:
            return outcome


def _in_slice(job: SiteJob, part: Slice, failure: Failure) -> Failure:
    if len(job.slices) == 1:
        return failure
    where = f"slice {part.index + 1} of {len(job.slices)}"
    return Failure(failure.cause, f"{where}: {failure.message}", failure.log)


def _missing_output(job: SiteJob, part: Slice) -> Failure | None:
    output = job.attempt.output
    if output is None or os.path.isfile(part.work / output.file):  # noqa: PTH113 - the job may have shut the directory
        return None
    shipped = {each.name.split("/")[0] for each in job.selection.files}
    try:
        made = sorted({path.name for path in part.work.iterdir()} - shipped)
    except OSError as error:
        made = [f"no directory that can be read ({error})"]
    there = ", ".join(made[:_MOST_NAMED]) if made else "nothing besides the files that were shipped"
    return Failure(
        Cause.MISSING_OUTPUT,
        f"output_file '{output.file}' was not made by '{job.location.qualname}' in {part.work}; there is {there}",
        str(part.log),
    )


def _clear(part: Slice) -> None:
    """Remove what an earlier attempt in the same directory left."""
    if part.work.exists():
        shutil.rmtree(part.work)
    for name in ("result.json", "error.json"):
        (part.directory / name).unlink(missing_ok=True)


def _write_parameters(file: Path, arguments: Mapping[str, object]) -> None:
    file.write_text(json.dumps(dict(_readable(arguments)), indent=1, default=repr))


def _readable(arguments: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The arguments with keys that JSON can write: the keys of gathered results are tuples."""
    for name, value in arguments.items():
        yield (
            name if isinstance(name, str) else repr(name),
            dict(_readable(value)) if isinstance(value, Mapping) else value,
        )
