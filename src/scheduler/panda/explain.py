"""Why a shipped function failed, in the words of the one who shipped it.

On the other side there is only an ``ImportError`` or a missing file. Here we know what did not ship, and why.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from scheduler.core.failures import Cause, Failure
from scheduler.panda.locate import FunctionLocation
from scheduler.panda.selection import Selection

_QUOTED = re.compile(r"'([^']+)'")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, slots=True)
class _Error:
    """What ``error.json`` says."""

    exception: str
    message: str
    traceback: str
    module: str | None


def explain(failure: Failure, *, results: Path, location: FunctionLocation, selection: Selection) -> Failure:
    """The failure of a job, with the explanation added if it comes from how the files were shipped.

    Args:
        failure: What the pilot saw.
        results: The directory with the job's ``error.json``, if it has one.
        location: The function.
        selection: What was shipped.
    """
    if failure.cause not in {Cause.ENVIRONMENT, Cause.EXCEPTION}:
        return failure
    error = _read_error(results / "error.json")
    if error is None:
        return failure
    if error.exception == "MissingMainGuardError":
        return Failure(Cause.ENVIRONMENT, _describe_missing_guard(error, location), failure.log)
    why = _why(error, location, selection)
    return failure if why is None else Failure(failure.cause, f"{failure.message}: {why}", failure.log)


def _why(error: _Error, location: FunctionLocation, selection: Selection) -> str | None:
    if error.module is not None:
        return why_module_is_missing(error.module, location, selection)
    if error.exception == "FileNotFoundError":
        return _why_file_is_missing(error.message, selection)
    return None


def why_module_is_missing(module: str, location: FunctionLocation, selection: Selection) -> str | None:
    """Why a module could not be imported by a job; None when shipping has nothing to do with it."""
    path = module.replace(".", "/")
    candidates = [f"{path}.py", f"{path}/__init__.py", path]
    for name in candidates:
        reason = selection.why_left_out(name)
        if reason is not None:
            return f"module '{module}' was not shipped: {reason}"
    shipped = {each.name for each in selection.files}
    folder = location.file.rpartition("/")[0]
    beside = [f"{folder}/{name}" for name in candidates[:2]] if folder else []
    for name in beside:
        if name in shipped:
            return (
                f"module '{module}' is shipped as {name}, but a job imports from the top of the source directory only: "
                f"import '{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}', "
                f"or set source_dir to {selection.root / folder}"
            )
    return _where_else_it_is(module, selection)


def _where_else_it_is(module: str, selection: Selection) -> str | None:
    origin = _origin_here(module.partition(".")[0])
    if origin is None:
        return None
    if origin.resolve().is_relative_to(selection.root.resolve()):
        name = origin.resolve().relative_to(selection.root.resolve()).as_posix()
        return f"module '{module}' is {name} here, and a job imports from the top of the source directory only"
    return (
        f"module '{module}' is {origin} here, which is outside the source directory {selection.root} and was not "
        "shipped: move it there, set source_dir to a directory that contains both, or install it for the jobs' python"
    )


def _origin_here(module: str) -> Path | None:
    """The file of a module in the driver's process."""
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if file is not None:
        return Path(file)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _why_file_is_missing(message: str, selection: Selection) -> str | None:
    found = _QUOTED.search(message)
    if found is None:
        return None
    name = found.group(1).removeprefix("./")
    reason = selection.why_left_out(name)
    return None if reason is None else f"'{name}' was not shipped: {reason}"


def _describe_missing_guard(error: _Error, location: FunctionLocation) -> str:
    lines = [line for file, line in _FRAME.findall(error.traceback) if file.endswith("/" + location.file)]
    where = f"{location.file}, line {lines[-1]}" if lines else location.file
    return (
        f"{where}: the program starts the scheduler while a job is importing it. A job imports the file to find the "
        "objective function; put what only the program itself shall do below the line\n"
        '    if __name__ == "__main__":'
    )


def _read_error(file: Path) -> _Error | None:
    try:
        stored = cast("dict[str, str]", json.loads(file.read_bytes()))
    except (OSError, ValueError):  # the job was torn away before it could write
        return None
    return _Error(stored["exception"], stored["message"], stored["traceback"], stored.get("module"))
