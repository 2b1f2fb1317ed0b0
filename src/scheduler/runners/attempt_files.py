"""The files about an attempt that people read: what it was called with and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from scheduler.core.specs import Function
from scheduler.runners.base_runner import Attempt
from scheduler.runners.commands import SCRIPT_PARAMETERS_FILE

PARAMETERS_FILE = "parameters.json"
COMMAND_FILE = "command.txt"
LOG_FILE = "log.txt"


def write_attempt_files(attempt: Attempt, directory: Path, *, command: str | None) -> None:
    """Make the attempt's directory and write its arguments and its command line there.

    Every file counts: to make one takes longer than all else that the program does for a job.

    Args:
        attempt: The attempt.
        directory: Its directory, absolute.
        command: What is run, as a person would type it; None when the arguments say it all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parameters = json.dumps(as_readable(attempt.arguments), indent=2) + "\n"
    (directory / PARAMETERS_FILE).write_text(parameters, encoding="utf-8")
    if not isinstance(attempt.payload, Function):
        (directory / SCRIPT_PARAMETERS_FILE).write_text(parameters, encoding="utf-8")
    if command is not None:
        (directory / COMMAND_FILE).write_text(f"{command}\n", encoding="utf-8")


def describe_call(function: Function, arguments: Mapping[str, object]) -> str:
    """A call as it would stand in a program, for example ``objective(x=0.25, y=1.0)``."""
    if function.takes_mapping:
        return f"{function.name}({dict(arguments)!r})"
    return f"{function.name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def as_readable(value: object) -> object:
    """The value in JSON types. Job keys, which are tuples, become text; other objects their representation."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {key if isinstance(key, str) else str(key): as_readable(each) for key, each in value.items()}
        case list() | tuple():
            return [as_readable(each) for each in value]
        case _:
            return repr(value)
