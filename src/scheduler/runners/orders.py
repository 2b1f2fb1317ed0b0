"""What can be asked of a pilot, and how it is written on the wire."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from scheduler.core.specs import Resources


@dataclass(frozen=True, slots=True)
class PickledFunction:
    """A function by value, for an interpreter of the same version.

    Attributes:
        data: What ``cloudpickle.dumps`` made of it.
        sys_path: The ``sys.path`` to load it with.
        name: What to call it in messages.
    """

    data: bytes
    sys_path: tuple[str, ...] = ()
    name: str = "the function"


@dataclass(frozen=True, slots=True)
class ShippedFunction:
    """A function by name, in files that are unpacked where the pilot runs.

    Attributes:
        root: The directory with the files; comes first on ``sys.path``.
        file: The function's file, relative to ``root``.
        module: The name under which the file is imported.
        qualname: The function's name in it, for example ``objective`` or ``Detector.objective``.
    """

    root: Path
    file: str
    module: str
    qualname: str


@dataclass(frozen=True, slots=True)
class Command:
    """A program. It ends well with exit code 0 and a ``result.json`` in the order's ``results`` directory.

    Attributes:
        argv: Program and arguments; the program is looked up on the order's PATH.
        name: What to call it in messages; the program if empty.
    """

    argv: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    """A function in the memory of this program, for pilots that are forked from it.

    Attributes:
        call: The function.
        name: What to call it in messages; also its name in the forked pilot.
    """

    call: Callable[..., object]
    name: str


Target = PickledFunction | ShippedFunction | Command | LoadedFunction


@dataclass(frozen=True, slots=True)
class Order:
    """One job for a pilot.

    Attributes:
        key: The caller's unique name of the job.
        target: What to run.
        directory: Its working directory, which exists.
        log: File for its stdout and stderr (written from the start); its directory exists.
        arguments: Arguments of the function; must be picklable. Commands have none.
        as_mapping: Call ``function(arguments)`` instead of ``function(**arguments)``.
        environment: Variables to set on top of the pilot's environment; None as a value unsets.
        results: Where ``result.json`` or ``error.json`` is written; None means ``directory``.
        template: Directory whose path is replaced by ``directory`` in the job's environment and ``sys.path``.
        resources: ``walltime_s``, counted from :meth:`Pilot.run`, and ``memory_mb`` are enforced.
    """

    key: str
    target: Target
    directory: Path
    log: Path
    arguments: Mapping[str, object] = field(default_factory=dict)
    as_mapping: bool = False
    environment: Mapping[str, str | None] = field(default_factory=dict)
    results: Path | None = None
    template: Path | None = None
    resources: Resources = field(default_factory=Resources)


def describe_target(target: Target) -> str:
    """What to call a target in a message."""
    match target:
        case ShippedFunction(file=file, qualname=qualname):
            return f"{qualname} of {file}"
        case PickledFunction(name=name) | LoadedFunction(name=name):
            return name
        case Command(name=name, argv=argv):
            return name or argv[0]
        case _:
            assert_never(target)


def encode_target(target: PickledFunction | ShippedFunction) -> dict[str, object]:
    """The target as the worker reads it."""
    match target:
        case PickledFunction(data=data, sys_path=sys_path):
            return {"kind": "pickle", "data": base64.b64encode(data).decode(), "sys_path": sys_path}
        case ShippedFunction(root=root, file=file, module=module, qualname=qualname):
            return {"kind": "shipped", "root": str(root), "file": file, "module": module, "qualname": qualname}
        case _:
            assert_never(target)


def encode_order(order: Order) -> dict[str, object]:
    """The order as the worker reads it, all but its target.

    Arguments are pickled, because job keys, which are tuples, may be keys in them.
    """
    return {
        "do": "run",
        "job": order.key,
        "directory": str(order.directory),
        "log": str(order.log),
        "results": str(order.results or order.directory),
        "arguments": base64.b64encode(pickle.dumps(dict(order.arguments), protocol=4)).decode(),
        "as_mapping": order.as_mapping,
        "environment": dict(order.environment),
        "template": None if order.template is None else str(order.template),
    }
