"""Where a function is found again on the other side: its file, the name of its module, its own name.

A shipped function travels by name. So it must be reachable by name: defined at the top of a module whose file ships.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from scheduler.errors import ShippingError
from scheduler.panda.selection import Selection


@dataclass(frozen=True, slots=True)
class FunctionLocation:
    """The name of a function in a shipped directory.

    Attributes:
        file: Its file, relative to the source directory, with ``/``.
        module: The name under which the file is imported: ``dir/file.py`` is ``dir.file``.
        qualname: The function's name in the module.
    """

    file: str
    module: str
    qualname: str


def source_file_of(function: Callable[..., object]) -> Path:
    """The file that a function has to be imported from.

    Functions of the main program are found in the main program's file.

    Raises:
        ShippingError: It cannot be imported by name; the message says why and what to do.
    """
    name = _importable_name(function)
    module = _module_of(function, name)
    file = getattr(module, "__file__", None)
    if file is None:
        raise ShippingError(
            f"function '{name}' is in no file (module '{module.__name__}' was typed into an interpreter or notebook, "
            "or is built in): write it into a .py file and import it from there"
        )
    if not file.endswith(".py"):
        raise ShippingError(f"function '{name}' comes from {file}, which is no .py file: wrap it in a Python function")
    if _lookup(module, name) != function:
        raise ShippingError(
            f"'{name}' in {file} is not the function that was given (it is decorated, renamed or deleted there): "
            "a job would import something else; define the objective under its own name at the top of the file"
        )
    return Path(file)


def locate(function: Callable[..., object], selection: Selection) -> FunctionLocation:
    """The name under which a job finds the function in the files that ship.

    Raises:
        ShippingError: It cannot be imported by name, or its file does not ship.
    """
    file, qualname = source_file_of(function), function.__qualname__
    name = selection.name_of(file)
    if name is not None:
        return FunctionLocation(name, name.removesuffix(".py").replace("/", "."), qualname)
    real, root = file.resolve(), selection.root.resolve()
    if real.is_relative_to(root):
        reason = (
            selection.why_left_out(real.relative_to(root).as_posix()) or "it was not there when files were selected"
        )
        raise ShippingError(f"function '{qualname}' is in {file}, which does not ship: {reason}")
    raise ShippingError(
        f"function '{qualname}' is in {file}, which is outside the source directory {selection.root} and does not "
        "ship: set source_dir to a directory that contains it"
    )


def _importable_name(function: Callable[..., object]) -> str:
    """The function's qualified name, if it is one by which others can reach it."""
    if isinstance(function, functools.partial):
        raise ShippingError(
            f"{function!r} is a partial, which has no name to import it by: define a function that makes the call"
        )
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(qualname, str):
        raise ShippingError(
            f"{function!r} is an object with __call__, which has no name to import it by: define a function that calls "
            "it"
        )
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.isclass(owner) and not inspect.ismodule(owner):
        raise ShippingError(
            f"'{qualname}' is a method of the object {owner!r}, which does not travel: define a function that makes it"
        )
    if "<lambda>" in qualname:
        raise ShippingError(f"'{qualname}' is a lambda, which has no name to import it by: define it with 'def'")
    if "<locals>" in qualname:
        raise ShippingError(
            f"'{qualname}' is defined inside another function and cannot be imported: move it to the top of its file, "
            "and give it what it takes from around it as arguments"
        )
    return qualname


def _module_of(function: Callable[..., object], name: str) -> ModuleType:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is None:
        raise ShippingError(f"function '{name}' belongs to no module that is loaded: define it in a .py file")
    return module


def _lookup(module: ModuleType, qualname: str) -> object:
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
