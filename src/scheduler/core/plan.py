"""From a workflow to jobs: fan-out over points, parents, gathered arguments, dataset names.

The layouts of job keys and dataset names are part of the contract with existing programs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from scheduler.core.names import check_dataset_name
from scheduler.core.specs import (
    NO_POINT,
    Dependency,
    DependencyMap,
    JobKey,
    Scalar,
    StepSpec,
    WorkflowSpec,
)
from scheduler.errors import WorkflowError


@dataclass(frozen=True, slots=True)
class JobId:
    """A step of a trial at one point.

    Attributes:
        trial: Index of the trial.
        step: Name of the step.
        point: The combination of global parameters, ``()`` if none.
    """

    trial: int
    step: str
    point: JobKey = NO_POINT

    def __str__(self) -> str:
        where = f", point {point_text(self.point)}" if self.point else ""
        return f"trial {self.trial}, step '{self.step}'{where}"


def points_of(global_parameters: Mapping[str, tuple[Scalar, ...]]) -> tuple[JobKey, ...]:
    """All combinations of the global parameters: names sorted, the last name varying fastest."""
    names = sorted(global_parameters)
    return tuple(
        tuple(zip(names, values, strict=True)) for values in product(*(global_parameters[name] for name in names))
    )


def contract_key(point: JobKey) -> JobKey | str:
    """The key under which programs find a job's result: the combination, or the string ``"None"``."""
    return point or "None"


def point_text(point: JobKey) -> str:
    """The combination as part of a name: ``k_v`` joined by ``+``, or ``None``."""
    return "+".join(f"{name}_{value}" for name, value in point) or "None"


def dataset_key(point: JobKey) -> str:
    """What ``#global_parameter_key`` becomes."""
    return point_text(point).replace("+", "plus").replace("-", "minus")


def step_points(workflow: WorkflowSpec, step: StepSpec) -> tuple[JobKey, ...]:
    """The points at which a step has jobs."""
    return points_of(workflow.global_parameters) if step.fans_out else (NO_POINT,)


def jobs_of(workflow: WorkflowSpec, trial: int) -> Iterator[JobId]:
    """All jobs of a trial, parents first."""
    for step in workflow.steps:
        for point in step_points(workflow, step):
            yield JobId(trial, step.name, point)


def parent_jobs(workflow: WorkflowSpec, job: JobId, dependency: Dependency) -> tuple[JobId, ...]:
    """The jobs of one parent that this job needs.

    A parent that has one job only serves every point of its child.
    """
    parent = workflow.step(dependency.parent)
    if not parent.fans_out:
        return (JobId(job.trial, parent.name),)
    if dependency.mapping is DependencyMap.ONE2ONE:
        return (JobId(job.trial, parent.name, job.point),)
    return tuple(JobId(job.trial, parent.name, point) for point in step_points(workflow, parent))


@dataclass(frozen=True, slots=True)
class Link:
    """One job's need of another.

    Attributes:
        job: The parent, or the child, as seen from the other end.
        is_chained: See :class:`~scheduler.core.specs.Dependency`.
    """

    job: JobId
    is_chained: bool


def parent_links(workflow: WorkflowSpec, job: JobId) -> tuple[Link, ...]:
    """Every job that this one needs."""
    return tuple(
        Link(parent, dependency.is_chained)
        for dependency in workflow.step(job.step).dependencies
        for parent in parent_jobs(workflow, job, dependency)
    )


def child_links(workflow: WorkflowSpec, job: JobId) -> tuple[Link, ...]:
    """Every job that needs this one."""
    found: list[Link] = []
    for child in workflow.children(job.step):
        dependency = next(each for each in child.dependencies if each.parent == job.step)
        same_point = dependency.mapping is DependencyMap.ONE2ONE and workflow.step(job.step).fans_out
        points = (job.point,) if same_point else step_points(workflow, child)
        found.extend(Link(JobId(job.trial, child.name, point), dependency.is_chained) for point in points)
    return tuple(found)


def arguments_of(
    workflow: WorkflowSpec,
    job: JobId,
    parameters: Mapping[str, Scalar],
    result_of: Callable[[JobId], Mapping[str, object]],
) -> dict[str, object]:
    """The keyword arguments of a job: design parameters, its point, and its parents' results.

    Args:
        workflow: The graph.
        job: The job.
        parameters: The trial's design parameters.
        result_of: Gives the result of a completed parent job; it contains the metrics that children need.
    """
    arguments: dict[str, object] = {**parameters, **dict(job.point)}
    for dependency in workflow.step(job.step).dependencies:
        if dependency.parameter is None:
            continue
        values = {
            contract_key(parent.point): result_of(parent)[dependency.parameter]
            for parent in parent_jobs(workflow, job, dependency)
        }
        is_single = dependency.mapping is DependencyMap.ONE2ONE
        arguments[dependency.parameter] = next(iter(values.values())) if is_single else values
    return arguments


def dataset_name(template: str, job: JobId, token: str) -> str:
    """Fill in the placeholders of a dataset name.

    Args:
        template: The name with ``#global_parameter_key``, ``#trial_id`` and ``#job_id``.
        job: The job that produces or consumes it.
        token: The trial's ``#job_id``: the same for all steps, so that producer and consumer meet.
    """
    return (
        template.replace("#global_parameter_key", dataset_key(job.point))
        .replace("#trial_id", f"trial_{job.trial}")
        .replace("#job_id", token)
    )


def job_token(run_id: str, trial: int) -> str:
    """The ``#job_id`` of a trial."""
    return f"{run_id}_{trial}"


def output_name(template: str, job: JobId, token: str) -> str:
    """The dataset of a job of the trial that the token belongs to, which may be one of another run."""
    return dataset_name(template, replace(job, trial=int(token.rpartition("_")[2])), token)


def input_name(workflow: WorkflowSpec, template: str, job: JobId, token: str, kept: Mapping[str, str]) -> str:
    """The dataset that a job reads: that of another run when the step that makes it is kept from there.

    Args:
        workflow: The graph.
        template: The name with placeholders.
        job: The job that reads it.
        token: The trial's own ``#job_id``.
        kept: See :class:`~scheduler.core.events.TrialStarted`.
    """
    makers = (step.name for step in workflow.steps if step.output is not None and step.output.dataset == template)
    return output_name(template, job, kept.get(next(makers, ""), token))


def check_dataset_names(workflow: WorkflowSpec, token: str) -> None:
    """Refuse dataset names that the catalogue would refuse, before anything is run.

    Raises:
        WorkflowError: With the step, the name and what is wrong with it.
    """
    for step in workflow.steps:
        templates = [*step.inputs.values(), *([step.output.dataset] if step.output else [])]
        for template in templates:
            for point in step_points(workflow, step):
                name = dataset_name(template, JobId(999_999, step.name, point), token)
                try:
                    check_dataset_name(name)
                except ValueError as error:
                    raise WorkflowError(f"step '{step.name}': dataset '{template}': {error}") from error
