"""What the user asks for: steps, their payloads and how they hang together.

Everything here is frozen, and a :class:`WorkflowSpec` that exists is sound: cycles, unknown names and contradictions
are refused with the names in the message when it is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from scheduler.errors import WorkflowError

Scalar = str | int | float | bool | None
JobKey = tuple[tuple[str, Scalar], ...]
"""One combination of the global parameters, sorted by name; ``()`` for a job without combination."""

NO_POINT: JobKey = ()

_SAFE_STEP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function, called with keyword arguments.

    Attributes:
        call: The function.
        takes_mapping: Call it with all arguments as one positional mapping instead.
    """

    call: Callable[..., object]
    takes_mapping: bool = False

    @property
    def name(self) -> str:
        """The function's name as a person would say it."""
        return getattr(self.call, "__qualname__", None) or repr(self.call)


@dataclass(frozen=True, slots=True)
class Script:
    """A program that reads ``$JOB_PARAMS_FILE`` and writes ``result.json``."""

    path: str
    options: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The path as given."""
        return self.path


@dataclass(frozen=True, slots=True)
class Container:
    """An image that reads ``/job/params.json`` and writes ``/job/result.json``."""

    image: str
    command: str | None = None
    options: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The image as given."""
        return self.image


Payload = Function | Script | Container


@dataclass(frozen=True, slots=True)
class Resources:
    """What one job may use. ``None`` leaves the choice to the runner.

    Attributes:
        cores: CPU cores.
        memory_mb: Memory in MB (10^6 bytes).
        walltime_s: Elapsed time in seconds.
    """

    cores: int | None = None
    memory_mb: int | None = None
    walltime_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("cores", "memory_mb", "walltime_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise WorkflowError(f"Resources({name}={value!r}): it must be greater than zero")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a job is tried again.

    Attributes:
        failed: Retries after the job itself failed (an exception, a limit, a bad result).
        lost: Retries after the job vanished or its worker or site broke down.
        backoff_s: Pause before the first retry in seconds; it doubles with each further one.
    """

    failed: int = 0
    lost: int = 2
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if self.failed < 0 or self.lost < 0 or self.backoff_s < 0:
            raise WorkflowError(f"{self}: numbers of retries and pauses cannot be negative")


class DependencyKind(StrEnum):
    """What a child needs of its parent."""

    RESULTS = "results"
    DATASETS = "datasets"


class DependencyMap(StrEnum):
    """Which of the parent's jobs a child's job needs."""

    ONE2ONE = "one2one"
    ALL2ONE = "all2one"


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge of the graph.

    Attributes:
        parent: Name of the parent step.
        kind: Whether results or datasets flow along the edge.
        mapping: Same point (``one2one``) or all points (``all2one``).
        parameter: The parent's metric that the child gets as the argument of this name; None orders only.
        is_chained: Whether the backend itself holds the child's job back until the parent's dataset is there, so that
            it may be handed over as soon as the backend has the parent's job.
    """

    parent: str
    kind: DependencyKind = DependencyKind.RESULTS
    mapping: DependencyMap = DependencyMap.ONE2ONE
    parameter: str | None = None
    is_chained: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """The dataset that a step produces.

    Attributes:
        dataset: Name of the dataset, with placeholders.
        file: Name of the file that each slice leaves in its working directory.
        num_events: Events of one job.
        num_events_per_job: Events of one slice.
    """

    dataset: str
    file: str
    num_events: int = 1
    num_events_per_job: int = 1

    @property
    def slices(self) -> int:
        """How many slices a job runs as."""
        return math.ceil(self.num_events / self.num_events_per_job)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One node of a trial's graph.

    Attributes:
        name: The user's name of the step.
        payload: What its jobs run.
        runner: The name of the runner that runs them.
        dependencies: The edges from its parents.
        fans_out: Whether it has one job per combination of the global parameters.
        returns_result: Whether anybody waits for what the payload returns.
        output: The dataset it produces, if any.
        inputs: Argument name -> dataset name with placeholders.
        resources: What a job may use; overrides the runner's.
        retry: How often a job is tried again.
        cache: Whether a recorded result of an equal job may be taken instead of running it.
        speculative: Whether a job that takes much longer than its siblings gets a second attempt beside the first.
    """

    name: str
    payload: Payload
    runner: str
    dependencies: tuple[Dependency, ...] = ()
    fans_out: bool = False
    returns_result: bool = True
    output: Output | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    cache: bool = False
    speculative: bool = False


@dataclass(frozen=True)
class WorkflowSpec:
    """The graph of one trial: steps in an order in which parents come first.

    Args:
        steps: The steps in the user's order.
        final: The step whose result is the trial's.
        global_parameters: Name -> values; their cartesian product are the points.

    Raises:
        WorkflowError: The graph is not sound; the message names the step.
    """

    steps: tuple[StepSpec, ...]
    final: str
    global_parameters: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self)
        for step in self.steps:
            _check_step(self, step)
        _check_final(self)
        object.__setattr__(self, "steps", _parents_first(self))
        object.__setattr__(self, "_by_name", MappingProxyType({step.name: step for step in self.steps}))

    def step(self, name: str) -> StepSpec:
        """The step of this name."""
        by_name: Mapping[str, StepSpec] = self.__dict__["_by_name"]
        return by_name[name]

    def children(self, name: str) -> tuple[StepSpec, ...]:
        """The steps that depend directly on the step of this name."""
        return tuple(step for step in self.steps if any(d.parent == name for d in step.dependencies))

    @property
    def has_chains(self) -> bool:
        """Whether any job may be handed over before its parent is complete."""
        return any(dependency.is_chained for step in self.steps for dependency in step.dependencies)

    def needed_metrics(self, name: str) -> frozenset[str]:
        """The metrics of this step that other steps take as arguments."""
        return frozenset(
            dependency.parameter
            for step in self.steps
            for dependency in step.dependencies
            if dependency.parent == name and dependency.parameter is not None
        )


def _check_names(workflow: WorkflowSpec) -> None:
    if not workflow.steps:
        raise WorkflowError("a workflow needs at least one step")
    names = [step.name for step in workflow.steps]
    for name in names:
        if not _SAFE_STEP_NAME.fullmatch(name):
            raise WorkflowError(
                f"step name {name!r} cannot be used as a directory name: use letters, digits, '_', '-' and '.'"
            )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise WorkflowError(f"steps defined twice: {', '.join(repeated)}")
    for name, values in workflow.global_parameters.items():
        if not values:
            raise WorkflowError(f"global parameter '{name}' has no values")
        if len(set(values)) != len(values):
            raise WorkflowError(f"global parameter '{name}' has a value twice: {list(values)}")


def _check_step(workflow: WorkflowSpec, step: StepSpec) -> None:
    known = {each.name: each for each in workflow.steps}
    if step.fans_out and not workflow.global_parameters:
        raise WorkflowError(f"step '{step.name}' is in global_parameters_steps, but there are no global_parameters")
    if step.cache and step.output is not None:
        raise WorkflowError(
            f"step '{step.name}' has cache=True and produces a dataset: a result from the cache would leave the other "
            "trial without its dataset; leave cache out, or let a step that reads the dataset have it"
        )
    if step.speculative:
        _check_speculative(step)
    seen: set[str] = set()
    for dependency in step.dependencies:
        parent = known.get(dependency.parent)
        if parent is None:
            raise WorkflowError(
                f"step '{step.name}' depends on '{dependency.parent}', which is no step; "
                f"the steps are {', '.join(sorted(known))}"
            )
        if dependency.parent in seen:
            raise WorkflowError(f"step '{step.name}' names its parent '{dependency.parent}' twice")
        seen.add(dependency.parent)
        _check_dependency(step, parent, dependency)
    parameters = [d.parameter for d in step.dependencies if d.parameter is not None]
    if len(set(parameters)) != len(parameters):
        raise WorkflowError(
            f"step '{step.name}' would get the argument '{parameters[0]}' from several parents; "
            "give each dependency its own 'parameter'"
        )


def _check_speculative(step: StepSpec) -> None:
    if not step.fans_out:
        raise WorkflowError(
            f"step '{step.name}' has speculative=True but one job per trial, which has no siblings to compare it with: "
            f"put '{step.name}' into global_parameters_steps, or leave speculative out"
        )
    if step.output is not None:
        raise WorkflowError(
            f"step '{step.name}' has speculative=True and produces a dataset: two attempts of a job would both put "
            "files into it; leave speculative out"
        )
    if step.inputs or any(dependency.kind is DependencyKind.DATASETS for dependency in step.dependencies):
        raise WorkflowError(
            f"step '{step.name}' has speculative=True and reads a dataset: how long its files take to arrive says "
            "nothing about the job; leave speculative out"
        )


def _check_dependency(step: StepSpec, parent: StepSpec, dependency: Dependency) -> None:
    if parent.fans_out and not step.fans_out and dependency.mapping is DependencyMap.ONE2ONE:
        raise WorkflowError(
            f"step '{step.name}' has one job but its parent '{parent.name}' has one per combination of the global "
            f"parameters: use dep_map 'all2one', or put '{step.name}' into global_parameters_steps"
        )
    if dependency.kind is DependencyKind.DATASETS and parent.output is None:
        raise WorkflowError(
            f"step '{step.name}' depends on the datasets of '{parent.name}', which produces none: "
            "set with_output_dataset, output_dataset and output_file there"
        )
    if dependency.parameter is not None and not parent.returns_result:
        raise WorkflowError(
            f"step '{step.name}' needs '{dependency.parameter}' of '{parent.name}', whose return_func_results is False"
        )


def _check_final(workflow: WorkflowSpec) -> None:
    final = next((step for step in workflow.steps if step.name == workflow.final), None)
    if final is None:
        raise WorkflowError(
            f"final is '{workflow.final}', which is no step; "
            f"the steps are {', '.join(sorted(step.name for step in workflow.steps))}"
        )
    if final.fans_out and math.prod(len(values) for values in workflow.global_parameters.values()) > 1:
        raise WorkflowError(
            f"the final step '{final.name}' has one job per combination of the global parameters, but a trial has one "
            "result: add a step with dep_map 'all2one' that merges them"
        )
    if not final.returns_result:
        raise WorkflowError(f"the final step '{final.name}' must return the trial's result: return_func_results=True")


def _parents_first(workflow: WorkflowSpec) -> tuple[StepSpec, ...]:
    waiting = list(workflow.steps)
    ordered: dict[str, StepSpec] = {}
    while waiting:
        ready = [step for step in waiting if all(d.parent in ordered for d in step.dependencies)]
        if not ready:
            raise WorkflowError("the dependencies go in a circle: " + " -> ".join(_find_cycle(waiting)))
        ordered.update((step.name, step) for step in ready)
        waiting = [step for step in waiting if step.name not in ordered]
    return tuple(ordered.values())


def _find_cycle(steps: list[StepSpec]) -> list[str]:
    parents = {step.name: [d.parent for d in step.dependencies] for step in steps}
    path = [steps[0].name]
    while True:
        parent = next(name for name in parents[path[-1]] if name in parents)
        if parent in path:
            return [*path[path.index(parent) :], parent]
        path.append(parent)
