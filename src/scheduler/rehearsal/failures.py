"""Why a job of a rehearsal failed: the kind of trouble, and the line of the user's file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from scheduler.core.failures import Cause
from scheduler.rehearsal.findings import Finding, Kind, Severity
from scheduler.rehearsal.notes import Notes
from scheduler.run_view import JobView

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_SHIPPED = re.compile(r".*/(?:unpacked-[^/]+/template|trials/\d+/[^/]+/[^/]+(?:/slice_\d+)?/work)/(.+)")
_KINDS_BY_CAUSE = {
    Cause.MISSING_OUTPUT: Kind.OUTPUT,
    Cause.TIMEOUT: Kind.LIMIT,
    Cause.MEMORY: Kind.LIMIT,
    Cause.RESULT: Kind.RESULT,
}
_KINDS_BY_EXCEPTION = {
    "MissingMainGuardError": Kind.GUARD,
    "FileNotFoundError": Kind.FILE,
    "ModuleNotFoundError": Kind.IMPORT,
    "ImportError": Kind.IMPORT,
}


def explain_failure(job: JobView, notes: Notes) -> Finding:
    """The finding that a failed job is."""
    error = _read_error(job)
    cause = Cause(job.cause) if job.cause is not None else None
    kind = Kind.FAILURE
    if cause in _KINDS_BY_CAUSE:
        kind = _KINDS_BY_CAUSE[cause]
    elif _asked_for_variable(error, notes):
        kind = Kind.VARIABLE
    elif error.get("exception") in _KINDS_BY_EXCEPTION:
        kind = _KINDS_BY_EXCEPTION[error["exception"]]
    file, line = _place(error.get("traceback", ""))
    return Finding(kind, Severity.ERROR, job.message or "failed, and nobody said why", job.step, file, line)


def _asked_for_variable(error: Mapping[str, str], notes: Notes) -> bool:
    """Whether the error is about a variable of this machine's environment."""
    if error.get("exception") != "KeyError":
        return False
    return any(repr(note["name"]) == error["message"] for note in notes.of("variable"))


def _place(traceback: str) -> tuple[str | None, int | None]:
    """The innermost shipped line in a traceback."""
    frames = [(_SHIPPED.fullmatch(file), int(line)) for file, line in _FRAME.findall(traceback)]
    shipped = [(match[1], line) for match, line in frames if match is not None]
    return shipped[-1] if shipped else (None, None)


def _read_error(job: JobView) -> Mapping[str, str]:
    """What the worker wrote about the exception; nothing when the job was torn away."""
    if job.log is None:
        return {}
    try:
        return cast("Mapping[str, str]", json.loads((Path(job.log).parent / "error.json").read_bytes()))
    except (OSError, ValueError):
        return {}
