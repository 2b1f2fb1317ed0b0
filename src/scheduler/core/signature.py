"""How a function wants to be called, found out before anything is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from scheduler.errors import WorkflowError

SLICE_PARAMETERS = frozenset({"slice_index", "slice_count", "slice_events"})
"""Parameters that a function of a step with slices may have; it is told which slice it is."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def takes_mapping(function: Callable[..., object], arguments: frozenset[str]) -> bool:
    """Whether a function wants all arguments as one positional mapping: ``f(parameterization)``.

    That is so when it has exactly one required parameter and no argument has its name.
    """
    parameters = _parameters(function)
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    if len(required) != 1 or required[0].name in arguments:
        return False
    others = {p.name for p in parameters if p.kind in _NAMED} - {required[0].name}
    return required[0].kind is not inspect.Parameter.KEYWORD_ONLY and not others & arguments


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_call(step: str, function: Callable[..., object], arguments: frozenset[str]) -> None:
    """Refuse a function that cannot be called with these keyword arguments.

    Args:
        step: The step's name, for the message.
        function: The function.
        arguments: The names of the arguments it will get.

    Raises:
        WorkflowError: It does not take one of them, or wants one that nobody gives.
    """
    parameters = _parameters(function)
    name = getattr(function, "__name__", repr(function))
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise WorkflowError(
                f"step '{step}': {name}() takes '{parameter.name}' by position only; "
                "it is called with keyword arguments"
            )
    named = {p.name for p in parameters if p.kind in _NAMED}
    is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    if not is_open and (unwanted := sorted(arguments - named)):
        raise WorkflowError(
            f"step '{step}': {name}({', '.join(sorted(named))}) does not take {_quoted(unwanted)}, "
            f"which it would be given; it is called with {_quoted(sorted(arguments))}"
        )
    required = {p.name for p in parameters if p.kind in _NAMED and p.default is p.empty}
    if missing := sorted(required - arguments - SLICE_PARAMETERS):
        raise WorkflowError(
            f"step '{step}': {name}() wants {_quoted(missing)}, which nobody gives; "
            f"it is called with {_quoted(sorted(arguments))}"
        )


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature: they are believed to take anything
        return [inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)]


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "no arguments"
