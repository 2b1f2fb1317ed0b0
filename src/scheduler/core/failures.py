"""Why a job failed, as a fact that can be stored, counted and shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """The kind of a failure: it decides about retries and tells the user where to look."""

    EXCEPTION = "exception"
    RESULT = "result"
    KILLED = "killed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    MISSING_OUTPUT = "missing output"
    ENVIRONMENT = "environment"
    SUBMISSION = "submission"
    LOST = "lost"
    CANCELLED = "cancelled"

    @property
    def is_lost(self) -> bool:
        """Whether the attempt vanished without a verdict on the job itself."""
        return self is Cause.LOST

    @property
    def is_infrastructure(self) -> bool:
        """Whether the trouble was with machines, so that the same design may well succeed another time."""
        return self in _INFRASTRUCTURE


_INFRASTRUCTURE = frozenset({Cause.KILLED, Cause.ENVIRONMENT, Cause.SUBMISSION, Cause.LOST, Cause.CANCELLED})


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        cause: The kind.
        message: One sentence for the user: what failed, with which value, what to do.
        log: Path of the file with the details, if there is one.
    """

    cause: Cause
    message: str
    log: str | None = None

    def __str__(self) -> str:
        return f"{self.cause}: {self.message}" + (f" (log: {self.log})" if self.log else "")
