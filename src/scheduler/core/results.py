"""What counts as a result: everything else fails the job, with a message that names the metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from scheduler.core.specs import WorkflowSpec
from scheduler.errors import ResultError

Measurement = tuple[float, float | None]
"""Mean and standard error of the mean; None when the error is unknown."""

_PAIR = 2


def check_step_result(workflow: WorkflowSpec, step: str, returned: object) -> dict[str, object]:
    """The result of a job of an intermediate step.

    Args:
        workflow: The graph; it knows which metrics other steps need.
        step: The step's name.
        returned: What the payload returned, made of JSON types.

    Returns:
        The metrics; empty when nobody waits for them and there are none.

    Raises:
        ResultError: There is nothing where something is needed, or a number that is none.
    """
    needed = workflow.needed_metrics(step)
    spec = workflow.step(step)
    if returned is None and not needed and (spec.output is not None or not spec.returns_result):
        return {}
    if not isinstance(returned, Mapping):
        raise ResultError(f"step '{step}' returned {_describe(returned)}; return a dict {{name: value}}")
    result = {str(name): value for name, value in returned.items()}
    _refuse_missing(step, needed, result)
    for name, value in result.items():
        _refuse_not_finite(name, value)
    return result


def check_final_result(step: str, returned: object, required: frozenset[str]) -> dict[str, object]:
    """The result of a trial: numbers or ``[mean, sem]`` by name; texts are kept with the trial.

    Args:
        step: The final step's name.
        returned: What the payload returned, made of JSON types. A bare number or pair is taken when exactly one metric
            is required.
        required: The metrics that the optimizer cannot do without.

    Raises:
        ResultError: A metric is missing, not finite or of the wrong type.
    """
    result = _named(step, returned, required)
    _refuse_missing(step, required, result)
    for name, value in result.items():
        _refuse_not_finite(name, value)
        if isinstance(value, str) and name not in required:
            continue
        if not _is_number(value) and not _is_measurement(value):
            raise ResultError(f"metric '{name}' is {_describe(value)}; return a number or (mean, sem)")
    return result


def measurements_of(result: Mapping[str, object]) -> dict[str, Measurement]:
    """The numeric part of a checked final result, as the optimizer takes it."""
    return {name: _measurement(value) for name, value in result.items() if not isinstance(value, str)}


def _named(step: str, returned: object, required: frozenset[str]) -> dict[str, object]:
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if len(required) == 1 and (_is_number(returned) or _is_measurement(returned)):
        return {next(iter(required)): returned}
    wanted = ", ".join(sorted(required))
    raise ResultError(f"step '{step}' returned {_describe(returned)}; return a dict with the metrics {wanted}")


def _refuse_missing(step: str, needed: frozenset[str], result: Mapping[str, object]) -> None:
    missing = sorted(needed - result.keys())
    if missing:
        there = ", ".join(sorted(result)) or "nothing"
        raise ResultError(f"step '{step}' returned no {_quoted(missing)}; it returned {there}")


def _refuse_not_finite(name: str, value: object) -> None:
    for path, number in _numbers(name, value):
        if not math.isfinite(number):
            raise ResultError(f"metric '{path}' is {number}; a result must be finite: raise an exception instead")


def _numbers(path: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{path}.{key}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _numbers(f"{path}[{index}]", inner)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_measurement(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != _PAIR:
        return False
    mean, sem = value
    return _is_number(mean) and (sem is None or (isinstance(sem, int | float) and sem >= 0))


def _measurement(value: object) -> Measurement:
    if isinstance(value, Sequence):
        mean, sem = value
        return float(mean), None if sem is None else float(sem)
    assert isinstance(value, int | float)  # noqa: S101 - checked by check_final_result
    return float(value), None


def _describe(value: object) -> str:
    return "None" if value is None else f"{value!r:.80} ({type(value).__name__})"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
