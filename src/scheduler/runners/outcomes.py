"""What became of a job, from the exit status of its process and the files that it left."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, Observation
from scheduler.worker import EXIT_ERROR, EXIT_RESULT

RESULT_FILE = "result.json"
ERROR_FILE = "error.json"

_TAIL_BYTES = 4096
_KILLED_IN_A_SHELL = 128 + signal.SIGKILL


def judge_function(status: int, *, results: Path, log: Path, name: str) -> Observation:
    """How a function's job ended.

    Args:
        status: Exit code, or minus the signal.
        results: The directory where the worker leaves its files.
        log: The job's log.
        name: What to call the payload.
    """
    if status == EXIT_RESULT:
        return _read_result(results / RESULT_FILE, log=log, name=name)
    if status == EXIT_ERROR:
        return HasFailed(_read_error(results / ERROR_FILE, log=log, name=name))
    return HasFailed(Failure(Cause.KILLED, f"{name} {describe_exit(status)}, without a result", str(log)))


def judge_command(status: int, *, results: Path, log: Path, name: str) -> Observation:
    """How a program ended; the arguments are those of :func:`judge_function`."""
    if status == 0:
        return _read_result(results / RESULT_FILE, log=log, name=name)
    if status == EXIT_ERROR and (results / ERROR_FILE).exists():
        return HasFailed(_read_error(results / ERROR_FILE, log=log, name=name))
    if status < 0:
        return HasFailed(Failure(Cause.KILLED, f"{name} {describe_exit(status)}", str(log)))
    hint = " (killed: out of memory?)" if status == _KILLED_IN_A_SHELL else ""
    message = f"{name} {describe_exit(status)}{hint}; its last words: {tail(log)}"
    return HasFailed(Failure(Cause.EXCEPTION, message, str(log)))


def describe_exit(status: int) -> str:
    """An exit status in words, for example ``was killed by SIGKILL (out of memory?)``."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log in one, or a remark that there are none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        return f"(its log cannot be read: {error})"
    last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(last) or "(its log is empty)"


def _read_result(file: Path, *, log: Path, name: str) -> Observation:
    try:
        return HasSucceeded(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        problem = f"{name} ended with exit code 0 but wrote no {file.name} in {file.parent}"
    except (OSError, ValueError) as error:
        problem = f"{name} left a {file.name} that is no JSON ({error})"
    return HasFailed(Failure(Cause.RESULT, problem, str(log)))


def _read_error(file: Path, *, log: Path, name: str) -> Failure:
    try:
        facts: Mapping[str, str] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Failure(Cause.EXCEPTION, f"{name} failed, and its {file.name} cannot be read ({error})", str(log))
    return failure_from(facts, log=log, name=name)


def failure_from(facts: Mapping[str, str], *, log: Path, name: str) -> Failure:
    """The failure that a worker's description of an exception tells of."""
    cause = Cause(facts["cause"])
    said = f"{facts['exception']}: {facts['message']}" if facts["message"] else facts["exception"]
    if cause is Cause.RESULT:
        said = f"{name}: {facts['message']}"
    elif cause is Cause.ENVIRONMENT:
        said = f"{name} could not be loaded: {said}"
    return Failure(cause, said, str(log))
