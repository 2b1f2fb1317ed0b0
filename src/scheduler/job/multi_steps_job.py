"""Objectives of several steps: the user's description of a graph, checked and turned into a workflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from scheduler.core.names import did_you_mean
from scheduler.core.specs import (
    Container,
    Dependency,
    DependencyKind,
    DependencyMap,
    Function,
    Output,
    Payload,
    Resources,
    RetryPolicy,
    Scalar,
    Script,
    StepSpec,
    WorkflowSpec,
)
from scheduler.errors import WorkflowError
from scheduler.job.job import Job, JobType
from scheduler.runners.base_runner import BaseRunner

_T = TypeVar("_T")

_STEP_DEFAULTS: dict[str, object] = {
    "func": None,
    "job_type": JobType.FUNCTION,
    "runner": None,
    "script_path": None,
    "container_image": None,
    "container_command": None,
    "parent_result_parameter_name": None,
    "return_func_results": True,
    "with_output_dataset": False,
    "output_file": None,
    "output_dataset": None,
    "num_events": 1,
    "num_events_per_job": 1,
    "with_input_datasets": False,
    "input_datasets": None,
    "resources": None,
    "timeout_s": None,
    "retries": None,
    "lost_retries": None,
    "cache": False,
    "speculative": False,
}
_DEPENDENCY_DEFAULTS: dict[str, object] = {
    "parent": None,
    "dep_type": "results",
    "dep_map": "one2one",
    "parameter": None,
}
_SCALARS = (str, int, float, bool, type(None))


class MultiStepsJob(Job):
    """A job of a trial with several steps; ``step`` and ``job_key`` say which."""


class MultiStepsFunction:
    """An objective that is computed in several steps.

    Nothing is run and nothing is checked against the search space here: that happens when the scheduler takes it.

    Args:
        objective_funcs: Step name -> what it runs, as a mapping with these keys: ``func`` (or ``script_path``, or
            ``container_image`` and ``container_command``, with the matching ``job_type``), ``runner`` (default: the
            scheduler's), ``parent_result_parameter_name`` (the parents' metric of this name becomes the argument of
            this name), ``return_func_results`` (whether anybody waits for the return value), ``with_output_dataset``,
            ``output_file``, ``output_dataset``, ``num_events``, ``num_events_per_job``, ``with_input_datasets``,
            ``input_datasets`` (argument -> dataset), ``resources`` (a :class:`~scheduler.Resources`, overrides the
            runner's), ``timeout_s`` (seconds that a job may run: short for ``Resources(walltime_s=...)``), ``retries``
            and ``lost_retries`` (how often a job is tried again after it failed, and after it vanished; default the
            scheduler's ``config``), ``cache`` (whether the recorded result of an equal job is taken instead of running
            it, see ``docs/cache.md``), ``speculative`` (whether a job of a fan-out that takes much longer than its
            siblings gets a second attempt; the first result wins, see ``docs/running.md``).
        deps: Step name -> its parent's name, or a mapping with ``parent``, ``dep_type`` ("results" or "datasets"),
            ``dep_map`` ("one2one" or "all2one") and ``parameter`` (the metric to take; default the step's
            ``parent_result_parameter_name``), or a list of those for several parents.
        final: The step whose result is the trial's; default the last one.
        global_parameters: Name -> values. Steps in ``global_parameters_steps`` have one job per combination.
        global_parameters_steps: Names of the steps that fan out.

    Raises:
        WorkflowError: The description contradicts itself; the message names the step.
    """

    def __init__(
        self,
        objective_funcs: Mapping[str, Mapping[str, object]],
        deps: Mapping[str, object] | None = None,
        final: str | None = None,
        global_parameters: Mapping[str, Sequence[Scalar]] | None = None,
        global_parameters_steps: Sequence[str] = (),
    ) -> None:
        if not objective_funcs:
            raise WorkflowError("objective_funcs is empty: give at least one step {name: {'func': ...}}")
        self._steps = {name: _read_step(name, given) for name, given in objective_funcs.items()}
        self._dependencies = self._read_dependencies(deps or {})
        self.final = final or next(reversed(self._steps))
        self.global_parameters = _read_global_parameters(global_parameters or {})
        self._fanned = self._read_fanned(global_parameters_steps)
        self.build({})  # refuses what is wrong now, where the user's line is on the stack

    @property
    def runners(self) -> dict[str, BaseRunner | None]:
        """Step name -> its runner; None for the scheduler's."""
        return {name: cast("BaseRunner | None", step["runner"]) for name, step in self._steps.items()}

    def build(self, runner_names: Mapping[str, str], retry: RetryPolicy | None = None) -> WorkflowSpec:
        """The workflow.

        Args:
            runner_names: Step name -> the name under which the engine knows its runner.
            retry: How often jobs of steps that do not say are tried again.
        """
        policy = retry or RetryPolicy()
        return WorkflowSpec(
            steps=tuple(self._step_spec(name, runner_names.get(name, ""), policy) for name in self._steps),
            final=self.final,
            global_parameters=self.global_parameters,
        )

    def _step_spec(self, name: str, runner: str, retry: RetryPolicy) -> StepSpec:
        step = self._steps[name]
        return StepSpec(
            name=name,
            payload=_payload(name, step),
            runner=runner,
            dependencies=self._dependencies.get(name, ()),
            fans_out=name in self._fanned,
            returns_result=bool(step["return_func_results"]),
            output=_output(name, step),
            inputs=_inputs(name, step),
            resources=_resources(name, step),
            retry=RetryPolicy(
                failed=_expect(name, step, "retries", int, retry.failed),
                lost=_expect(name, step, "lost_retries", int, retry.lost),
                backoff_s=retry.backoff_s,
            ),
            cache=_switch(name, step, "cache"),
            speculative=_switch(name, step, "speculative"),
        )

    def _read_dependencies(self, deps: Mapping[str, object]) -> dict[str, tuple[Dependency, ...]]:
        found: dict[str, tuple[Dependency, ...]] = {}
        for child, given in deps.items():
            if child not in self._steps:
                raise WorkflowError(f"deps names '{child}', which is no step{_known(child, self._steps)}")
            entries = list(given) if isinstance(given, list | tuple) else [given]
            found[child] = tuple(self._read_dependency(child, entry) for entry in entries)
        return found

    def _read_dependency(self, child: str, given: object) -> Dependency:
        where = f"deps of step '{child}'"
        if isinstance(given, str):
            given = {"parent": given}
        if not isinstance(given, Mapping):
            raise WorkflowError(f"{where}: {given!r} is neither a step's name nor a mapping with 'parent'")
        entry = _with_defaults(where, given, _DEPENDENCY_DEFAULTS)
        parent = entry["parent"]
        if not isinstance(parent, str) or parent not in self._steps:
            raise WorkflowError(f"{where}: parent {parent!r} is no step{_known(str(parent), self._steps)}")
        kind = _choose(where, "dep_type", entry["dep_type"], DependencyKind)
        parameter = entry["parameter"] or self._steps[child]["parent_result_parameter_name"]
        return Dependency(
            parent=parent,
            kind=kind,
            mapping=_choose(where, "dep_map", entry["dep_map"], DependencyMap),
            parameter=str(parameter) if parameter and kind is DependencyKind.RESULTS else None,
        )

    def _read_fanned(self, steps: Sequence[str]) -> frozenset[str]:
        if isinstance(steps, str):
            raise WorkflowError(f"global_parameters_steps must be a list of step names, not the text {steps!r}")
        for name in steps:
            if name not in self._steps:
                raise WorkflowError(
                    f"global_parameters_steps names '{name}', which is no step{_known(name, self._steps)}"
                )
        return frozenset(steps)


def _read_step(name: str, given: Mapping[str, object]) -> dict[str, object]:
    step = _with_defaults(f"step '{name}'", given, _STEP_DEFAULTS)
    for switch, key in (("with_output_dataset", "output_dataset"), ("with_input_datasets", "input_datasets")):
        if key in given and switch not in given:
            raise WorkflowError(
                f"step '{name}' has {key} but not {switch}: set it to True, or to False to switch it off"
            )
    return step


def _payload(name: str, step: Mapping[str, object]) -> Payload:
    job_type = step["job_type"]
    if job_type is JobType.FUNCTION:
        if not callable(step["func"]):
            raise WorkflowError(f"step '{name}': func is {step['func']!r}; give a function")
        return Function(cast("Callable[..., object]", step["func"]))
    if job_type is JobType.SCRIPT:
        path = _expect(name, step, "script_path", str | Path, None)
        if path is None:
            raise WorkflowError(f"step '{name}' is a script: give script_path")
        return Script(str(path))
    if job_type is JobType.CONTAINER:
        image = _expect(name, step, "container_image", str, None)
        if image is None:
            raise WorkflowError(f"step '{name}' is a container: give container_image")
        return Container(image, _expect(name, step, "container_command", str, None))
    raise WorkflowError(
        f"step '{name}': job_type is {job_type!r}; use JobType.FUNCTION, JobType.SCRIPT or JobType.CONTAINER"
    )


def _inputs(name: str, step: Mapping[str, object]) -> dict[str, str]:
    if not step["with_input_datasets"]:
        return {}
    inputs: Mapping[object, object] = _expect(name, step, "input_datasets", Mapping, {})
    if not inputs:
        raise WorkflowError(f"step '{name}': with_input_datasets is set, but input_datasets names none")
    for argument, dataset in inputs.items():
        if not isinstance(argument, str) or not isinstance(dataset, str):
            raise WorkflowError(f"step '{name}': input_datasets maps {argument!r} to {dataset!r}; give argument: name")
    return {str(argument): str(dataset) for argument, dataset in inputs.items()}


def _resources(name: str, step: Mapping[str, object]) -> Resources:
    resources: Resources = _expect(name, step, "resources", Resources, Resources())
    timeout_s: float | None = _expect(name, step, "timeout_s", int | float, None)
    if timeout_s is None:
        return resources
    if resources.walltime_s is not None:
        raise WorkflowError(f"step '{name}' has timeout_s and resources.walltime_s, which mean the same: give one")
    return replace(resources, walltime_s=timeout_s)


def _output(name: str, step: Mapping[str, object]) -> Output | None:
    dataset = _expect(name, step, "output_dataset", str, None)
    file = _expect(name, step, "output_file", str, None)
    if not step["with_output_dataset"]:
        return None
    if not dataset or not file:
        raise WorkflowError(f"step '{name}': with_output_dataset needs output_dataset and output_file")
    if file.startswith("/") or ".." in Path(file).parts or Path(file).name != file:
        raise WorkflowError(
            f"step '{name}': output_file {file!r} must be the name of a file in the job's working directory"
        )
    num_events = _expect(name, step, "num_events", int, 1)
    per_job = _expect(name, step, "num_events_per_job", int, 1)
    if num_events < 1 or per_job < 1:
        raise WorkflowError(
            f"step '{name}': num_events={num_events} and num_events_per_job={per_job} must be at least 1"
        )
    return Output(dataset, file, num_events, per_job)


def _read_global_parameters(given: Mapping[str, Sequence[Scalar]]) -> dict[str, tuple[Scalar, ...]]:
    found: dict[str, tuple[Scalar, ...]] = {}
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise WorkflowError(f"global parameter '{name}' must be a list of values, not {values!r}")
        for value in values:
            if not isinstance(value, _SCALARS):
                raise WorkflowError(
                    f"global parameter '{name}' has the value {value!r} ({type(value).__name__}); "
                    "use numbers, texts or booleans"
                )
        found[name] = tuple(values)
    return found


def _with_defaults(where: str, given: object, defaults: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise WorkflowError(f"{where} must be a mapping, not {given!r}")
    for key in given:
        if key not in defaults:
            valid = ", ".join(f"{name} ({value!r})" for name, value in defaults.items())
            raise WorkflowError(
                f"{where}: unknown key '{key}'{did_you_mean(str(key), defaults)} valid keys and defaults: {valid}"
            )
    return {**defaults, **given}


def _expect(step: str, values: Mapping[str, object], key: str, kind: object, default: _T) -> _T:
    value = values[key]
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
        raise WorkflowError(f"step '{step}': {key} is {value!r}, a {type(value).__name__}, which cannot be")
    return cast("_T", value)


def _switch(step: str, values: Mapping[str, object], key: str) -> bool:
    value = values[key]
    if not isinstance(value, bool):
        raise WorkflowError(f"step '{step}': {key} is {value!r}; give True or False")
    return value


def _choose(where: str, key: str, value: object, kind: type[_T]) -> _T:
    valid = [str(member.value) for member in kind]  # type: ignore[attr-defined]
    if value not in valid:
        raise WorkflowError(f"{where}: {key} is {value!r}; valid are {', '.join(valid)}")
    return kind(value)  # type: ignore[call-arg]


def _known(name: str, steps: Iterable[str]) -> str:
    return did_you_mean(name, steps) or f"; the steps are {', '.join(sorted(steps))}"
