"""Finding the object that keeps a function from being pickled."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator


def name_offender(call: Callable[..., object]) -> str:
    """What about a function cannot be pickled, as a person would say it; ``it`` when that cannot be found out."""
    with contextlib.suppress(ValueError):  # a variable that has no value yet
        for role, name, value in _belongings(call):
            if not _is_picklable(value):
                return f"{role} '{name}' ({type(value).__module__}.{type(value).__qualname__})"
    return "it"


def _belongings(call: Callable[..., object]) -> Iterator[tuple[str, str, object]]:
    owner = getattr(call, "__self__", None)
    function = inspect.unwrap(getattr(call, "__func__", call))
    if owner is not None:
        yield from (("the attribute", name, value) for name, value in vars(owner).items())
    if not inspect.isfunction(function):
        yield from (("the attribute", name, value) for name, value in getattr(call, "__dict__", {}).items())
        return
    variables = inspect.getclosurevars(function)
    yield from (("the variable", name, value) for name, value in variables.nonlocals.items())
    yield from (("the global variable", name, value) for name, value in variables.globals.items())
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield "the default value of the parameter", name, parameter.default


def _is_picklable(value: object) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - user objects may raise whatever they like; that they do is the answer
        return False
    return True
