"""What a re-analysis keeps of a trial of another run: the results of the steps that have not changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId, job_token, step_points
from scheduler.core.results import check_final_result, check_step_result
from scheduler.core.specs import Scalar, WorkflowSpec
from scheduler.core.states import JobState
from scheduler.errors import ResultError


@dataclass(frozen=True, slots=True)
class TakenTrial:
    """A trial to begin with results that are there.

    Attributes:
        index: Its number in the new run.
        parameters: The design parameters.
        results: The jobs that have their results, parents first.
        kept: See :class:`~scheduler.core.events.TrialStarted`.
        source: Where the results come from, in words.
    """

    index: int
    parameters: Mapping[str, Scalar]
    results: Mapping[JobId, Mapping[str, object]]
    kept: Mapping[str, str]
    source: str


def downstream(workflow: WorkflowSpec, steps: Collection[str]) -> frozenset[str]:
    """These steps and all that depend on them."""
    found = set(steps)
    for step in workflow.steps:  # parents first
        if any(dependency.parent in found for dependency in step.dependencies):
            found.add(step.name)
    return frozenset(found)


def missing_result(
    old: ExperimentState, trial: int, workflow: WorkflowSpec, kept: Collection[str], required: frozenset[str]
) -> str | None:
    """Why the results of kept steps of a trial cannot be taken; None when they can.

    Args:
        old: The run to take from.
        trial: Its trial.
        workflow: The new graph, whose kept steps are those of the old one.
        kept: The kept steps.
        required: The metrics that a trial's result must have.
    """
    bad = old.trials[trial].first_bad
    if bad is not None and bad.step in kept:
        return f"step '{bad.step}' is {old.job(bad).state}"
    for step in workflow.steps:
        if step.name not in kept:
            continue
        for point in step_points(workflow, step):
            record = old.job(JobId(trial, step.name, point))
            if record.state is not JobState.COMPLETED:
                return f"step '{step.name}' is {record.state}"
            try:
                if step.name == workflow.final:
                    check_final_result(step.name, record.result, required)
                else:
                    check_step_result(workflow, step.name, record.result)
            except ResultError as error:
                return str(error)
    return None


def take(
    old: ExperimentState, trial: int, index: int, workflow: WorkflowSpec, kept: Collection[str], run: tuple[str, str]
) -> TakenTrial:
    """What is kept of a trial for which :func:`missing_result` finds nothing.

    Args:
        old: The run to take from.
        trial: Its trial.
        index: The number of the trial in the new run.
        workflow: The new graph.
        kept: The kept steps.
        run: Identifier and name of the run to take from.
    """
    run_id, name = run
    record = old.trials[trial]
    results: dict[JobId, Mapping[str, object]] = {}
    tokens: dict[str, str] = {}
    for step in workflow.steps:
        if step.name not in kept:
            continue
        # Datasets keep the names they were made with, also in a re-analysis of a re-analysis.
        tokens[step.name] = record.kept.get(step.name, job_token(run_id, trial))
        for point in step_points(workflow, step):
            results[JobId(index, step.name, point)] = old.job(JobId(trial, step.name, point)).result or {}
    return TakenTrial(index, record.parameters, results, tokens, f"run {name}, trial {trial}")
