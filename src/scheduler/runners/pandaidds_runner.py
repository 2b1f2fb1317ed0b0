"""PanDA through iDDS; the embedded site when no service is configured."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scheduler import rehearsing
from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import Observation
from scheduler.core.specs import Function, Payload, Resources, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.panda.catalogues import CATALOGUE_DEFAULTS, Catalogues, choose_catalogue, run_directory_of
from scheduler.panda.exclusion import parse_exclusions
from scheduler.panda.idds import Site, check_configuration
from scheduler.panda.locate import locate
from scheduler.panda.sandbox import Packer
from scheduler.panda.shipment import Shipment
from scheduler.panda.slices import check_output_file, check_output_names
from scheduler.panda.sources import sources_of
from scheduler.runners.base_runner import Attempt, BaseRunner, JobEnvironment
from scheduler.runners.panda_places import EmbeddedPlace, GridPlace, Place, in_one_line

logger = logging.getLogger(__name__)

Service = Literal["auto", "panda", "idds", "local"]

_SERVICES = ("auto", "panda", "idds", "local")
_SERVICE_VARIABLES = ("PANDA_URL_SSL", "PANDA_URL")
_CONFIG_DEFAULTS: Mapping[str, object] = {"slots": None, **CATALOGUE_DEFAULTS, "capacity": None}


@dataclass(frozen=True, slots=True)
class GridSettings:
    """What only the real grid asks for.

    Attributes:
        name: Prefix of the task names.
        cloud: PanDA cloud.
        queue: PanDA queue.
        vo: Virtual organization.
        enable_separate_log: Whether logs are kept apart from outputs. On the embedded site they always are.
    """

    name: str | None
    cloud: str
    queue: str
    vo: str
    enable_separate_log: bool


class PanDAiDDSRunner(BaseRunner):
    """Runs functions on PanDA, or by the same rules on this machine.

    The program's files are packed, unpacked where the job runs, and the function is imported there by name: so put
    what only the program itself shall do below ``if __name__ == "__main__":``. Without a PanDA service in the
    environment, jobs run on the *embedded site* on this machine.

    Args:
        name: Prefix of the task names. For the grid.
        cloud: PanDA cloud. For the grid.
        queue: PanDA queue. For the grid.
        vo: Virtual organization. For the grid.
        init_env: Lines of bash (text, or a list of lines) that run in the unpacked directory before the jobs; the
            ``python3`` on PATH after it runs them. A line that fails is reported in the log and does not stop it.
        source_dir: What ships: None for the current directory, a directory, or ``"function"`` for the directory of the
            file that the function is in.
        source_dir_parent_level: With ``"function"``: how many levels above that directory. Without effect otherwise.
        exclude_source_files: Names that do not ship. A pattern with any of ``*?[]^$.()|+{}`` is a regular expression
            that must match the beginning of a name; any other must equal the name.
        max_walltime: Time limit of a job, in seconds, unless its step has one.
        core_count: Cores of a job, unless its step says so. On the embedded site: slots.
        total_memory: Memory limit of a job, in MB, unless its step has one.
        enable_separate_log: Keep logs apart from outputs. For the grid; on the embedded site each job has its own log.
        global_parameters: Refused unless empty: they belong into MultiStepsFunction.
        job_dir: Where tarballs and their unpacked copies go; by default ``sandboxes`` in the run directory.
        funcs: Refused unless empty: they belong into MultiStepsFunction.
        deps: Refused unless empty: they belong into MultiStepsFunction.
        config: For the grid: ``capacity`` (how many jobs may be in flight; default: any number). For the embedded site:
            ``slots`` (cores that its jobs use together; default: those of the machine), ``catalogue`` (where its
            datasets are: ``"local"``, the default, or ``"rucio"``), ``catalogue_dir`` (the directory of a local one;
            default: ``datasets`` in the run directory) and ``rse`` (the storage element of new datasets in Rucio;
            default: the only one where the account has quota).
        service: ``"local"`` for the embedded site, ``"panda"`` or ``"idds"`` for the grid; ``"auto"`` takes ``"panda"``
            when ``PANDA_URL_SSL`` or ``PANDA_URL`` is set, else ``"local"``.

    Raises:
        ConfigurationError: An argument is wrong, or the service is not configured.
    """

    stages_inputs = True
    stages_outputs = True

    def __init__(  # noqa: PLR0913, PLR0917 - the signature that existing programs use
        self,
        name: str | None = None,
        cloud: str = "US",
        queue: str = "BNL_PanDA_1",
        vo: str = "wlcg",
        init_env: str | Sequence[str] | None = None,
        source_dir: str | Path | None = None,
        source_dir_parent_level: int = 1,
        exclude_source_files: Sequence[str] = (),
        max_walltime: float = 36000,
        core_count: int = 1,
        total_memory: int = 4000,
        enable_separate_log: bool = True,  # noqa: FBT001, FBT002 - as above
        global_parameters: Mapping[str, object] | None = None,
        job_dir: str | Path | None = None,
        funcs: Mapping[str, object] | None = None,
        deps: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        *,
        service: Service = "auto",
    ) -> None:
        _refuse_workflow(funcs=funcs, deps=deps, global_parameters=global_parameters)
        self.grid = GridSettings(name, cloud, queue, vo, enable_separate_log)
        self.limits = _limits(max_walltime=max_walltime, core_count=core_count, total_memory=total_memory)
        lines = _bash_lines(init_env)
        self._sources = sources_of(
            source_dir,
            levels_above=_whole_number("source_dir_parent_level", source_dir_parent_level, at_least=0),
            exclusions=parse_exclusions(exclude_source_files),
        )
        settings = _checked_config(config or {})
        slots, capacity = (_count_or_none(f"config['{name}']", settings[name]) for name in ("slots", "capacity"))
        catalogues = Catalogues(choose_catalogue(settings))
        self._job_dir = _path("job_dir", job_dir)
        self._packer: Packer | None = None
        self.service = _choose_service(service)
        self.runs_here = self.service == "local"
        self.chains_datasets = self.appends_outputs = not self.runs_here
        self._environment = (
            JobEnvironment("embedded site", lines, is_ours=True)
            if self.service == "local"
            else JobEnvironment("grid", lines)
        )
        self._place: Place = (
            EmbeddedPlace(
                slots=slots,
                cores=self.limits.cores or 1,
                init_env=lines,
                catalogues=catalogues,
                on_change=self.wake,
            )
            if self.service == "local"
            else GridPlace(
                self.service,
                Site(cloud, queue, vo, in_one_line(lines), enable_separate_log),
                prefix=name,
                capacity=capacity,
                on_change=self.wake,
            )
        )

    def __repr__(self) -> str:
        where = self._sources.source_dir or "the function's directory"
        return (
            f"PanDAiDDSRunner(name={self.grid.name!r}, service={self.service!r}, source_dir='{where}', "
            f"max_walltime={self.limits.walltime_s}, core_count={self.limits.cores}, "
            f"total_memory={self.limits.memory_mb})"
        )

    @property
    def capacity(self) -> int | None:  # type: ignore[override]  # computed on first use: counting cores imports loky
        """How many jobs of ``core_count`` cores run at once; None on the grid, unless ``config`` says so."""
        return self._place.capacity

    def may_be_followed(self, native_id: str) -> bool:
        """Whether an attempt may be chained to this one: on the grid, to those of this very program."""
        return self._place.may_be_followed(native_id)

    def check(self, step: StepSpec) -> None:
        """Refuse a step that could never run: not a function, nothing that ships, an impossible output.

        Raises:
            ConfigurationError: With the step's name, what is wrong and what to do.
        """
        if not isinstance(step.payload, Function):
            raise ConfigurationError(f"step '{step.name}': {_why_no_function(step.payload)}")
        try:
            locate(step.payload.call, self._sources.selection_for(step.payload.call))
        except ConfigurationError as error:
            raise type(error)(f"step '{step.name}': {error}") from error
        if step.output is not None:
            check_output_file(step.output.file, step=step.name)
            _refuse_loop(f"step '{step.name}'", step.output.dataset, step.inputs)
        self._place.check(step)

    def environment(self) -> JobEnvironment:
        """Where jobs run, and the ``init_env`` that runs before them."""
        return self._environment

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:
        """What is in the input datasets: known on the embedded site with a local catalogue."""
        return self._place.contents(attempt)

    def submit(self, batch: Sequence[Attempt]) -> dict[str, str | Failure]:
        """Pack attempts and send them."""
        answer: dict[str, str | Failure] = {}
        jobs: list[Shipment] = []
        for attempt in batch:
            try:
                jobs.append(self._job(attempt))
            except (ConfigurationError, OSError) as error:
                answer[attempt.label] = Failure(Cause.SUBMISSION, str(error))
        if jobs:
            answer.update(self._place.submit(jobs, self._sandboxes(batch[0])))
        return answer

    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """Look at attempts. The embedded site knows those that this very object submitted since :meth:`close`."""
        return self._place.poll(attempts)

    def cancel(self, attempts: Mapping[str, str]) -> None:
        """End attempts: on the embedded site with all their processes, on the grid by having PanDA kill their tasks."""
        self._place.cancel(attempts)

    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """Those of these labels that are known. Jobs of the embedded site die with their driver."""
        return self._place.find(labels)

    def close(self) -> None:
        """End the jobs of the embedded site; those on the grid go on. Later submissions ship the files as they are."""
        self._place.close()
        self._sources.forget()

    def _job(self, attempt: Attempt) -> Shipment:
        if not isinstance(attempt.payload, Function):
            raise ConfigurationError(_why_no_function(attempt.payload))
        if attempt.output is not None:
            check_output_names(attempt.output)
            _refuse_loop("the job", attempt.output.dataset, attempt.inputs)
        function = attempt.payload
        attempt = replace(attempt, directory=attempt.directory.absolute())  # jobs run in directories of their own
        selection = self._sources.selection_for(function.call)
        location = locate(function.call, selection)
        return Shipment(
            attempt=attempt,
            function=function,
            location=location,
            selection=selection,
            tarball=self._packer_for(attempt).pack(selection),
            resources=_with_defaults(attempt.resources, self.limits),
        )

    def _packer_for(self, attempt: Attempt) -> Packer:
        if self._packer is None:
            self._packer = Packer(self._sandboxes(attempt))
        return self._packer

    def _sandboxes(self, attempt: Attempt) -> Path:
        return self._job_dir or run_directory_of(attempt) / "sandboxes"


def _choose_service(service: str) -> str:
    if service not in _SERVICES:
        raise ConfigurationError(f"service={service!r} is unknown; choose one of {', '.join(map(repr, _SERVICES))}")
    if rehearsing.current() is not None:
        return "local"
    if service == "auto":
        variable = next((name for name in _SERVICE_VARIABLES if os.environ.get(name)), None)
        service = "local" if variable is None else "panda"
        if variable is None:
            logger.info("no PanDA service is configured (PANDA_URL_SSL is not set): jobs run on this machine")
        else:
            logger.info("%s is set: jobs run on PanDA at %s", variable, os.environ[variable])
    if service != "local":
        check_configuration(service)
    return service


def _why_no_function(payload: Payload) -> str:
    return f"PanDAiDDSRunner runs Python functions, not '{payload.name}': call it from a function, or use JobLibRunner"


def _refuse_loop(who: str, output: str, inputs: Mapping[str, str]) -> None:
    if output in inputs.values():
        raise ConfigurationError(f"{who} reads dataset '{output}' and writes it: let it write another one")


def _refuse_workflow(**arguments: Mapping[str, object] | None) -> None:
    given = [name for name, value in arguments.items() if value]
    if given:
        raise ConfigurationError(
            f"PanDAiDDSRunner takes no {', '.join(given)}: describe steps, dependencies and global parameters with "
            "MultiStepsFunction and give that to set_objective_function"
        )


def _limits(*, max_walltime: float, core_count: int, total_memory: int) -> Resources:
    if isinstance(max_walltime, bool) or not isinstance(max_walltime, int | float) or not max_walltime > 0:
        raise ConfigurationError(f"max_walltime must be a number of seconds greater than zero, not {max_walltime!r}")
    return Resources(
        cores=_whole_number("core_count", core_count, at_least=1),
        memory_mb=_whole_number("total_memory", total_memory, at_least=1),
        walltime_s=max_walltime,
    )


def _with_defaults(wanted: Resources, default: Resources) -> Resources:
    given = {name: getattr(wanted, name) for name in ("cores", "memory_mb", "walltime_s")}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def _whole_number(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigurationError(f"{name} must be a whole number of at least {at_least}, not {value!r}")
    return value


def _count_or_none(name: str, value: object) -> int | None:
    return None if value is None else _whole_number(name, value, at_least=1)


def _bash_lines(init_env: object) -> str:
    if init_env is None:
        return ""
    if isinstance(init_env, str):
        return init_env
    if isinstance(init_env, Sequence) and all(isinstance(line, str) for line in init_env):
        return "\n".join(init_env)
    raise ConfigurationError(f"init_env must be text or a list of lines of bash, not {init_env!r}")


def _path(name: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path):
        raise ConfigurationError(f"{name} must be a path, not {value!r}")
    return Path(value).expanduser().absolute()


def _checked_config(config: Mapping[str, object]) -> dict[str, object]:
    unknown = sorted(set(config) - set(_CONFIG_DEFAULTS))
    if unknown:
        valid = ", ".join(f"{name!r} (default {value!r})" for name, value in _CONFIG_DEFAULTS.items())
        raise ConfigurationError(f"PanDAiDDSRunner: unknown config {', '.join(map(repr, unknown))}; valid are {valid}")
    return {**_CONFIG_DEFAULTS, **config}
