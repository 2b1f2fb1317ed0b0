"""From what the user calls the objective to a workflow that can be run, with every check that needs no run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from scheduler.caching.keys import check_cacheable
from scheduler.core.plan import check_dataset_names
from scheduler.core.signature import check_call, takes_mapping
from scheduler.core.specs import (
    Container,
    DependencyKind,
    DependencyMap,
    Function,
    Payload,
    RetryPolicy,
    Script,
    StepSpec,
    WorkflowSpec,
)
from scheduler.errors import ConfigurationError, WorkflowError
from scheduler.job.multi_steps_job import MultiStepsFunction
from scheduler.runners.base_runner import BaseRunner

logger = logging.getLogger(__name__)

Objective = Callable[..., object] | MultiStepsFunction | Script | Container

_SINGLE_STEP = "objective"
_LONGEST_TOKEN = "0" * 16


@dataclass(frozen=True, slots=True)
class PreparedObjective:
    """A workflow and the runners that its steps name.

    Attributes:
        workflow: The graph.
        runners: Name -> runner.
    """

    workflow: WorkflowSpec
    runners: Mapping[str, BaseRunner]


def prepare(
    objective: Objective,
    runner: BaseRunner,
    design_parameters: frozenset[str],
    retry: RetryPolicy | None = None,
) -> PreparedObjective:
    """Check an objective against the search space and its runners.

    Args:
        objective: What the user set.
        runner: The scheduler's runner, for steps that name none.
        design_parameters: The names of the search space.
        retry: How often jobs of steps that do not say are tried again.

    Raises:
        ConfigurationError: Something cannot work; the message names the step.
    """
    if isinstance(objective, MultiStepsFunction):
        used = {step: own if own is not None else runner for step, own in objective.runners.items()}
        names = _name_runners(used)
        workflow = objective.build({step: names[id(each)] for step, each in used.items()}, retry)
        runners = {names[id(each)]: each for each in used.values()}
    else:
        payload: Payload = objective if isinstance(objective, Script | Container) else Function(objective)
        names = _name_runners({_SINGLE_STEP: runner})
        step = StepSpec(_SINGLE_STEP, payload, names[id(runner)], retry=retry or RetryPolicy())
        workflow = WorkflowSpec((step,), _SINGLE_STEP)
        runners = {names[id(runner)]: runner}
    _check_global_parameters(workflow, design_parameters)
    workflow = replace(
        workflow, steps=tuple(_settle_call(step, workflow, design_parameters) for step in workflow.steps)
    )
    check_dataset_names(workflow, _LONGEST_TOKEN)
    for step in workflow.steps:
        _check_runner(step, runners[step.runner])
    steps = [_once_if_it_appends(step, runners[step.runner]) for step in workflow.steps]
    workflow = replace(workflow, steps=tuple(_chain(step, workflow, runners[step.runner]) for step in steps))
    return PreparedObjective(workflow, runners)


def _once_if_it_appends(step: StepSpec, runner: BaseRunner) -> StepSpec:
    """The step without retries, when a second attempt would leave a dataset with the files of both."""
    if step.output is None or not runner.appends_outputs:
        return step
    if step.retry.failed:
        logger.warning(
            "step '%s' is not tried again although retries=%d: a second attempt would add to the same dataset",
            step.name,
            step.retry.failed,
        )
    return replace(step, retry=RetryPolicy(failed=0, lost=0))


def _chain(step: StepSpec, workflow: WorkflowSpec, runner: BaseRunner) -> StepSpec:
    """The step, chained to its parent when the runner can do that and nobody waits for what the parent returns.

    A backend holds a job back for one other job: a step with several parents waits for them here.
    """
    if not runner.chains_datasets or len(step.dependencies) != 1:
        return step
    (dependency,) = step.dependencies
    parent = workflow.step(dependency.parent)
    is_one_job = dependency.mapping is DependencyMap.ONE2ONE or not parent.fans_out
    is_chained = (
        dependency.kind is DependencyKind.DATASETS
        and is_one_job
        and not parent.returns_result
        and parent.runner == step.runner
    )
    return replace(step, dependencies=(replace(dependency, is_chained=is_chained),))


def _name_runners(used: Mapping[str, object]) -> dict[int, str]:
    """A name for each distinct runner, by identity: its type, numbered from the second on."""
    names: dict[int, str] = {}
    for step, runner in used.items():
        if not isinstance(runner, BaseRunner):
            raise ConfigurationError(
                f"step '{step}': the runner is {runner!r}; give a JobLibRunner, a PanDAiDDSRunner or another BaseRunner"
            )
        kind = type(runner).__name__
        same = sum(name.split("#")[0] == kind for name in names.values())
        names.setdefault(id(runner), kind if same == 0 else f"{kind}#{same + 1}")
    return names


def _check_global_parameters(workflow: WorkflowSpec, design_parameters: frozenset[str]) -> None:
    both = sorted(design_parameters & workflow.global_parameters.keys())
    if both:
        raise WorkflowError(
            f"'{both[0]}' is both a global parameter and a design parameter of the search space: rename one of them"
        )


def _settle_call(step: StepSpec, workflow: WorkflowSpec, design_parameters: frozenset[str]) -> StepSpec:
    """The step with its function's way of being called decided and checked."""
    if not isinstance(step.payload, Function):
        return step
    arguments = _argument_names(step, workflow, design_parameters)
    if takes_mapping(step.payload.call, arguments):
        return replace(step, payload=replace(step.payload, takes_mapping=True))
    check_call(step.name, step.payload.call, arguments)
    return step


def _argument_names(step: StepSpec, workflow: WorkflowSpec, design_parameters: frozenset[str]) -> frozenset[str]:
    given = [
        ("the search space", design_parameters),
        ("the global parameters", frozenset(workflow.global_parameters) if step.fans_out else frozenset()),
        ("its parents", frozenset(d.parameter for d in step.dependencies if d.parameter is not None)),
        ("its input datasets", frozenset(step.inputs)),
    ]
    names: dict[str, str] = {}
    for source, arguments in given:
        for argument in arguments:
            if argument in names:
                raise WorkflowError(
                    f"step '{step.name}' would get the argument '{argument}' from {names[argument]} and from {source}"
                )
            names[argument] = source
    return frozenset(names)


def _check_runner(step: StepSpec, runner: BaseRunner) -> None:
    for verb, is_wanted, is_possible in (
        ("produces", step.output is not None, runner.stages_outputs),
        ("reads", bool(step.inputs), runner.stages_inputs),
    ):
        if is_wanted and not is_possible:
            raise WorkflowError(
                f"step '{step.name}' {verb} datasets, which {type(runner).__name__} cannot: run it on a PanDAiDDSRunner"
            )
    runner.check(step)
    if step.cache:
        check_cacheable(step, runner)
