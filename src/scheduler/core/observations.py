"""What a runner sees of an attempt when it looks.

An observation is a picture, not a fact of ours: the engine compares it with what it knows and makes events of what is
new. What a backend does not mention is left out; silence has no observation.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.failures import Failure


@dataclass(frozen=True, slots=True)
class IsQueued:
    """The backend knows the attempt and has not started it.

    Attributes:
        link: Where a person can look at it in the backend's own pages; empty if nowhere.
    """

    link: str = ""


@dataclass(frozen=True, slots=True)
class IsRunning:
    """The payload is running.

    Attributes:
        link: Where a person can look at it in the backend's own pages; empty if nowhere.
    """

    link: str = ""


@dataclass(frozen=True, slots=True)
class HasSucceeded:
    """The payload ended well.

    Attributes:
        result: What it returned, made of JSON types only. Not yet checked.
        source: Where it comes from when it was not simply run, in words for people; empty otherwise.
    """

    result: object
    source: str = ""


@dataclass(frozen=True, slots=True)
class HasFailed:
    """The attempt is over without a result."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class WasCancelled:
    """The backend confirms that the attempt was cancelled and no longer runs."""


Observation = IsQueued | IsRunning | HasSucceeded | HasFailed | WasCancelled
