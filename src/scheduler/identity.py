"""What makes a run the run it is: the search space, the objectives and the graph. A resumed run must be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scheduler.core.specs import (
    Dependency,
    DependencyKind,
    DependencyMap,
    Output,
    Script,
    StepSpec,
    WorkflowSpec,
)
from scheduler.optimizer import AxOptimizer

_HARMLESS = ("runs", "runner", "resources", "retry", "num_events", "num_events_per_job")
"""What of a step may change when the user says so: results that exist stay valid results of that step."""


def identity_of(workflow: WorkflowSpec, optimizer: AxOptimizer) -> dict[str, object]:
    """The identity, made of JSON types."""
    return {
        "parameters": {name: str(each) for name, each in optimizer.experiment.search_space.parameters.items()},
        "constraints": [str(each) for each in optimizer.experiment.search_space.parameter_constraints],
        "objectives": {name: "minimize" if lower else "maximize" for name, lower in optimizer.objectives.items()},
        "required metrics": sorted(optimizer.required_metrics),
        "global parameters": {name: list(values) for name, values in workflow.global_parameters.items()},
        "final": workflow.final,
        "steps": {step.name: _step(step) for step in workflow.steps},
    }


def workflow_of(identity: Mapping[str, Any]) -> WorkflowSpec:
    """The graph of a recorded identity, with payloads that only have names: good for replaying, not for running."""
    return WorkflowSpec(
        steps=tuple(_named_step(name, step) for name, step in identity["steps"].items()),
        final=identity["final"],
        global_parameters={name: tuple(values) for name, values in identity["global parameters"].items()},
    )


def _named_step(name: str, step: Mapping[str, Any]) -> StepSpec:
    has_output = step["output dataset"] is not None
    return StepSpec(
        name=name,
        payload=Script(step["runs"]),
        runner=step["runner"],
        dependencies=tuple(
            Dependency(parent, DependencyKind(kind), DependencyMap(mapping), parameter)
            for parent, kind, mapping, parameter in step["parents"]
        ),
        fans_out=step["fans out"],
        returns_result=step["returns a result"],
        output=Output(step["output dataset"], step["output file"]) if has_output else None,
    )


def _step(step: StepSpec) -> dict[str, object]:
    return {
        "runs": step.payload.name,
        "runner": step.runner,
        "parents": [[d.parent, d.kind.value, d.mapping.value, d.parameter] for d in step.dependencies],
        "fans out": step.fans_out,
        "returns a result": step.returns_result,
        "inputs": dict(step.inputs),
        "output dataset": step.output and step.output.dataset,
        "output file": step.output and step.output.file,
        "num_events": step.output and step.output.num_events,
        "num_events_per_job": step.output and step.output.num_events_per_job,
        "resources": [step.resources.cores, step.resources.memory_mb, step.resources.walltime_s],
        "retry": [step.retry.failed, step.retry.lost, step.retry.backoff_s],
    }


def differences(before: object, now: object, *, ignore_harmless: bool, path: str = "") -> Iterator[str]:
    """Where two identities differ, a line for each place.

    Args:
        before: The recorded one.
        now: The program's.
        ignore_harmless: Leave out what the user may change in a run.
        path: Where in the identity this is.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            if ignore_harmless and path.startswith("steps.") and key in _HARMLESS:
                continue
            where = f"{path}.{key}" if path else str(key)
            missing = "(nothing)"
            yield from differences(
                before.get(key, missing), now.get(key, missing), ignore_harmless=ignore_harmless, path=where
            )
    elif before != now:
        yield f"{path}: the run has {before}, the program has {now}"
