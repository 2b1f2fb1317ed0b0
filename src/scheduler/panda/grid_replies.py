"""What iDDS and PanDA answer, understood: transforms, results, and the states of both, without any network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from scheduler.errors import RunnerUnavailableError


class TransformStatus(IntEnum):
    """The states of a transform, numbered as iDDS does."""

    NEW = 0
    READY = 1
    TRANSFORMING = 2
    FINISHED = 3
    SUB_FINISHED = 4
    FAILED = 5
    EXTEND = 6
    TO_CANCEL = 7
    CANCELLING = 8
    CANCELLED = 9
    TO_SUSPEND = 10
    SUSPENDING = 11
    SUSPENDED = 12
    TO_RESUME = 13
    RESUMING = 14
    TO_EXPIRE = 15
    EXPIRING = 16
    EXPIRED = 17
    TO_FINISH = 18
    TO_FORCE_FINISH = 19
    TERMINATING = 20
    BUILDING = 21
    BUILT = 22
    QUEUE = 23
    THROTTLING = 24
    WAIT_FOR_TRIGGER = 25

    @property
    def is_over(self) -> bool:
        """Whether nothing of the transform runs or will run."""
        return self in _OVER


_OVER = frozenset(
    {
        TransformStatus.FINISHED,
        TransformStatus.SUB_FINISHED,
        TransformStatus.FAILED,
        TransformStatus.CANCELLED,
        TransformStatus.EXPIRED,
    }
)

TASKS_OVER = frozenset({"done", "finished", "failed", "exhausted", "aborted", "broken"})
"""PanDA's task states in which nothing runs any more."""

TASKS_RUNNING = frozenset({"running", "scouting", "finishing", "toincexec", "aborting"})
"""PanDA's task states in which jobs run, or have run."""


@dataclass(frozen=True, slots=True)
class Transform:
    """A work as iDDS sees it.

    Attributes:
        id: Its number.
        name: The name that we gave to the work.
        status: Its state.
        task_id: PanDA's number of the task; None until iDDS has submitted it.
    """

    id: int
    name: str
    status: TransformStatus
    task_id: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """What one job published when its function returned or raised.

    Attributes:
        request_id: The request of its work.
        transform_id: Its work.
        value: What the function returned, of JSON types; None when it raised.
        error: The text of the exception; None when it returned.
    """

    request_id: int
    transform_id: int
    value: object
    error: str | None


def transforms_in(reply: object) -> list[Transform]:
    """The transforms in the details of a request, one for each row; a request without any has a row without.

    Raises:
        RunnerUnavailableError: The reply is something else.
    """
    try:
        rows: list[Any] = list(reply) if isinstance(reply, list) else [reply]
        found = [_transform(row) for row in rows if row["transform_id"] is not None]
    except (KeyError, TypeError, ValueError) as error:
        raise RunnerUnavailableError(
            f"iDDS answered something else than the details of a request: {_excerpt(reply)}"
        ) from error
    return list({each.id: each for each in found}.values())


def results_in(reply: object) -> list[Result]:
    """The results among the messages of a reply, oldest first.

    Raises:
        RunnerUnavailableError: The reply is no list of messages.
    """
    if not isinstance(reply, list):
        raise RunnerUnavailableError(f"iDDS answered something else than messages: {_excerpt(reply)}")
    return list(_results(reply))


def result_of(body: object) -> Result | None:
    """The result in the body of a message; None when the message is about something else."""
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except ValueError:
            return None
    if not isinstance(body, Mapping):
        return None
    match body.get("ret"):
        case [status, value, error, *_]:
            try:
                request_id, transform_id = int(body["request_id"]), int(body["transform_id"])
            except (KeyError, TypeError, ValueError):
                return None
            if status is True:
                return Result(request_id, transform_id, value, None)
            return Result(request_id, transform_id, None, str(error or ""))
        case _:
            return None


def request_ids_in(reply: object) -> list[int]:
    """The request ids of a reply to a search by name, oldest first.

    Raises:
        RunnerUnavailableError: The reply is something else.
    """
    try:
        return sorted(int(each) for each in dict(reply).values())  # type: ignore[call-overload]  # checked by doing it
    except (TypeError, ValueError) as error:
        raise RunnerUnavailableError(f"iDDS answered something else than requests: {_excerpt(reply)}") from error


def user_in(reply: object) -> str | None:
    """The name under which the service knows the user who made a request."""
    listed = reply if isinstance(reply, list) else [reply]
    names = [each.get("username") for each in listed if isinstance(each, Mapping)]
    return next((name for name in names if isinstance(name, str) and name), None)


def _results(messages: Sequence[object]) -> Iterator[Result]:
    for message in messages:
        if isinstance(message, Mapping) and (result := result_of(message.get("body"))) is not None:
            yield result


def _transform(row: Mapping[str, object]) -> Transform:
    task_id = row["transform_workload_id"]
    return Transform(
        id=int(str(row["transform_id"])),
        name=str(row["transform_name"] or ""),
        status=_status(row["transform_status"]),
        task_id=int(str(task_id)) if task_id else None,
    )


def _status(raw: object) -> TransformStatus:
    """The states are written as numbers, or as the attributes of its own enumeration."""
    if isinstance(raw, Mapping):
        raw = raw["attributes"]["_value_"]
    return TransformStatus(int(str(raw)))


def _excerpt(reply: object) -> str:
    text = repr(reply)
    return text if len(text) <= 200 else f"{text[:200]}..."  # noqa: PLR2004 - a line of a log
