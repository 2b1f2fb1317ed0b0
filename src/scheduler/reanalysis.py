"""A re-analysis: which trials a new run takes of an earlier one, which is only read, and what it keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.core.machine import ExperimentState
from scheduler.core.plan import JobId, output_name, step_points
from scheduler.core.specs import WorkflowSpec
from scheduler.core.takeover import TakenTrial, downstream, missing_result, take
from scheduler.errors import ConfigurationError
from scheduler.identity import differences, workflow_of
from scheduler.panda.datasets import LocalCatalogue
from scheduler.reanalysing import Order
from scheduler.run_directory import DATABASE, DATASETS
from scheduler.store import Store, holder_of


@dataclass(frozen=True, slots=True)
class Plan:
    """What a re-analysis does; kept in the new run, so that it can be resumed.

    Attributes:
        run: The directory of the earlier run.
        steps: The changed steps, from which on everything is run.
        trials: The trials that are taken; their places are their numbers in the new run.
        left: Reason -> the trials that are not taken.
        was_going_on: Whether a program worked on the earlier run.
    """

    run: str
    steps: Sequence[str]
    trials: Sequence[int]
    left: Mapping[str, Sequence[int]]
    was_going_on: bool = False

    def __str__(self) -> str:
        count = len(self.trials) + sum(len(trials) for trials in self.left.values())
        left = "; ".join(f"{_trials(trials)} ({reason})" for reason, trials in self.left.items())
        return (
            f"re-analysing {len(self.trials)} of {count} trials of {self.run} from {_quoted(self.steps)}"
            + (f"; not taken: {left}" if left else "")
            + ("; that run goes on: only what it has now is taken" if self.was_going_on else "")
        )


def make_plan(
    order: Order, workflow: WorkflowSpec, identity: Mapping[str, Any], required_metrics: frozenset[str]
) -> Plan:
    """Choose the trials to take.

    Args:
        order: What the command was asked for.
        workflow: The program's graph.
        identity: The program's identity.
        required_metrics: The metrics that the result of a trial must have.

    Raises:
        ConfigurationError: The steps do not exist, what would be kept differs, or there is nothing to take.
        StoreError: The run cannot be read.
    """
    names = [step.name for step in workflow.steps]
    unknown = sorted(set(order.steps) - set(names))
    if unknown:
        raise ConfigurationError(f"--from {unknown[0]}: the program has no such step; its steps are {', '.join(names)}")
    kept = _kept_steps(workflow, order.steps)
    if not kept:
        raise ConfigurationError(
            f"--from {' '.join(order.steps)}: all steps come from there, so nothing would be kept; start a new run"
        )
    about, old, is_going_on = _read(order.run)
    problems = [*_differences(about["identity"], identity, workflow, kept), *_shared_datasets(workflow, kept)]
    if problems:
        raise ConfigurationError("\n  ".join([f"the program cannot take over the trials of {order.run}:", *problems]))
    taken, left = [], dict[str, list[int]]()
    for trial in old.trials:
        reason = missing_result(old, trial, workflow, kept, required_metrics)
        if reason is None:
            taken.append(trial)
        else:
            left.setdefault(reason, []).append(trial)
    plan = Plan(order.run, order.steps, taken, left, is_going_on)
    if not taken:
        raise ConfigurationError(f"there is no trial to take: {plan}")
    return plan


def plan_of(about: Mapping[str, Any]) -> Plan | None:
    """The plan of a run that is a re-analysis; None for others."""
    return Plan(**about["reanalysis"]) if "reanalysis" in about else None


def taken_trials(plan: Plan, workflow: WorkflowSpec, run: Path) -> list[TakenTrial]:
    """What is kept of the trials of a plan; datasets of the earlier run are made known in the new one.

    Args:
        plan: The plan.
        workflow: The program's graph.
        run: The directory of the new run.

    Raises:
        StoreError: The earlier run cannot be read.
        DatasetError: A dataset of it cannot be taken.
    """
    about, old, _ = _read(plan.run)
    kept = _kept_steps(workflow, plan.steps)
    source = str(about["run_id"]), Path(plan.run).name
    trials = [take(old, trial, index, workflow, kept, source) for index, trial in enumerate(plan.trials)]
    theirs, ours = LocalCatalogue(Path(plan.run) / DATASETS), LocalCatalogue(run / DATASETS)
    for trial in trials:
        for name in _datasets_of(trial, workflow):
            ours.link(theirs, name)
    return trials


def _datasets_of(trial: TakenTrial, workflow: WorkflowSpec) -> Iterator[str]:
    for step, token in trial.kept.items():
        output = workflow.step(step).output
        if output is not None:
            for point in step_points(workflow, workflow.step(step)):
                yield output_name(output.dataset, JobId(trial.index, step, point), token)


def _kept_steps(workflow: WorkflowSpec, changed: Sequence[str]) -> frozenset[str]:
    return frozenset(step.name for step in workflow.steps) - downstream(workflow, changed)


def _read(path: str) -> tuple[dict[str, Any], ExperimentState, bool]:
    with closing(Store.open(Path(path) / DATABASE)) as store:
        about = store.about()
        identity: Any = about["identity"]
        state = ExperimentState(workflow_of(identity))
        for _, event in store.events():
            state.apply(event)
        return about, state, holder_of(store) is not None


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], workflow: WorkflowSpec, kept: frozenset[str]
) -> Iterator[str]:
    """What differs in what is kept. Other functions, runners and limits of kept steps concern new trials only."""
    if before["parameters"].keys() != now["parameters"].keys():
        yield f"parameters: the run has {_listed(before['parameters'])}, the program has {_listed(now['parameters'])}"
    if any(workflow.step(name).fans_out for name in kept):
        key = "global parameters"
        yield from differences(before[key], now[key], ignore_harmless=False, path=key)
    for name in sorted(kept):
        earlier = before["steps"].get(name)
        if earlier is None:
            known = ", ".join(before["steps"])
            yield f"step '{name}' would be kept, but the run has none; it has {known}: name it with --from, too"
        else:
            present = {key: now["steps"][name].get(key) for key in earlier}
            yield from differences(earlier, present, ignore_harmless=True, path=f"steps.{name}")


def _shared_datasets(workflow: WorkflowSpec, kept: frozenset[str]) -> Iterator[str]:
    makers = {step.name: step.output.dataset for step in workflow.steps if step.output is not None}
    for name, dataset in makers.items():
        same = next((other for other in makers if other in kept and makers[other] == dataset), None)
        if name not in kept and same is not None:
            yield f"step '{name}' writes the dataset '{dataset}' of step '{same}', which is kept: give it another name"


def _trials(trials: Sequence[int]) -> str:
    return f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names))
