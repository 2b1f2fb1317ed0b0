"""The exceptions of the scheduler.

Divided by what the caller can do about them::

    SchedulerError
    ├── ConfigurationError       an option or argument is wrong: correct it (also a ValueError)
    │   └── WorkflowError        the steps, dependencies or names of a workflow are wrong
    ├── RunnerError              a backend did not do what was asked
    │   ├── RunnerUnavailableError   it did not answer: try again later (transient)
    │   └── ShippingError        the source files cannot be shipped: mend the directory or the patterns
    ├── DatasetError             the dataset catalogue refused: unknown, closed, exists, corrupted
    ├── ResultError              a job returned something that is no result
    ├── StoreError               the run's database cannot be read or written
    │   └── RunLockedError       another program works on the run
    ├── MissingMainGuardError    the program runs the scheduler while it is being imported by a job
    ├── OptimizationError        the optimization cannot go on
    │   ├── GenerationError      the optimizer failed to propose a candidate
    │   ├── TooManyFailuresError more trials failed than ``failure_rate`` allows
    │   └── NoSuccessfulTrialError   every trial failed, so there is no best point
    ├── OptimizationInterrupted  the user stopped the run (also a KeyboardInterrupt)
    └── InvalidTransitionError   news that cannot be true: a defect of ours or of a runner

:class:`Infeasible` stands apart: it is raised by the user's steps and is no error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

INFEASIBLE_MARK = "#infeasible"
"""What follows it in the text of an exception is a JSON object with the reason, the constraint and its value."""

_LONGEST_REASON = 250  # characters: text and JSON, all escaped, stay below what a worker keeps of a message


class Infeasible(Exception):  # noqa: N818 - a finding, not an error
    """Raised by a step that finds the design infeasible: its trial ends, without being a failure.

    With a constraint, the optimizer is told its value and learns from it; without, the design is not proposed again.
    The other jobs of the trial are cancelled, nothing is retried, and the trial does not count for ``failure_rate``.

    All of it is in the text, since a job on the grid gives back nothing else. Where this package is not installed, any
    exception with such a text does the same: ``raise RuntimeError('#infeasible{"reason": "too heavy"}')``.

    Args:
        reason: Why, for people.
        constraint: A metric with an outcome constraint, which the design violates.
        value: The value of that metric: a number, or (mean, standard error).

    Example::

        def check(thickness):
            overlap = geometry(thickness).overlap_mm
            if overlap > 0:
                raise Infeasible("layers overlap", constraint="overlap_mm", value=overlap)
    """

    def __init__(
        self, reason: str, *, constraint: str | None = None, value: float | tuple[float, float] | None = None
    ) -> None:
        if (constraint is None) != (value is None):
            raise TypeError(
                f"Infeasible({reason!r}): give constraint and value, or neither: a name alone tells nothing"
            )
        self.reason, self.constraint, self.value = reason, constraint, value
        short = reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."
        given = {} if constraint is None else {"constraint": constraint, "value": _plain(value)}
        super().__init__(f"{short} {INFEASIBLE_MARK}{json.dumps({'reason': short, **given})}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its parts: a step may raise it in a process pool of its own."""
        return _again, (self.reason, self.constraint, self.value)


def _again(reason: str, constraint: str | None, value: float | tuple[float, float] | None) -> Infeasible:
    return Infeasible(reason, constraint=constraint, value=value)


def _plain(value: object) -> object:
    """A number, or a mean and its error, that JSON takes, also of numpy's."""
    is_pair = isinstance(value, tuple | list)
    numbers = [float(each) for each in value] if is_pair else [float(value)]  # type: ignore[attr-defined, arg-type]
    if not all(map(math.isfinite, numbers)) or (is_pair and (len(numbers) != 2 or numbers[1] < 0)):  # noqa: PLR2004
        raise ValueError(f"the value of an infeasible design is {value!r}: give a finite number or (mean, error >= 0)")
    return numbers if is_pair else numbers[0]


class SchedulerError(Exception):
    """Base of all exceptions that this package raises on purpose.

    Attributes:
        transient: Whether the same call may succeed later without any change.
    """

    transient: bool = False


class ConfigurationError(SchedulerError, ValueError):
    """An option, argument or file given by the user is wrong."""


class WorkflowError(ConfigurationError):
    """A workflow contradicts itself; nothing has been run."""


class RunnerError(SchedulerError):
    """A backend could not do what it was asked to."""


class RunnerUnavailableError(RunnerError):
    """A backend does not answer. Jobs keep their state; the call is repeated later."""

    transient = True


class ShippingError(RunnerError, ConfigurationError):
    """The files of a program cannot be packed or shipped."""


class DatasetError(SchedulerError):
    """The dataset catalogue refused an operation."""


class ResultError(SchedulerError):
    """A job returned something that cannot be its result."""


class StoreError(SchedulerError):
    """The database of a run cannot be read or written."""


class RunLockedError(StoreError):
    """Another program works on the run."""


class MissingMainGuardError(SchedulerError):
    """A program started the scheduler while a job was importing it."""


class OptimizationError(SchedulerError):
    """The optimization cannot go on or has no answer."""


class GenerationError(OptimizationError):
    """The optimizer raised while it was asked for a candidate."""


class TooManyFailuresError(OptimizationError):
    """More trials failed than the experiment allows."""


class NoSuccessfulTrialError(OptimizationError):
    """No trial succeeded."""


class OptimizationInterrupted(SchedulerError, KeyboardInterrupt):  # noqa: N818 - an interrupt is no error
    """The user stopped the run before it was complete."""


class InvalidTransitionError(SchedulerError):
    """An event arrived that cannot happen in the state the job is in.

    Args:
        subject: What the event is about, for example ``trial 3, step 'sim', point 'None'``.
        state: The state it is in.
        event: The name of the event.
        history: The events that led to the state, oldest first.
    """

    def __init__(self, subject: str, state: str, event: str, history: Sequence[str] = ()) -> None:
        self.subject, self.state, self.event, self.history = subject, state, event, tuple(history)
        story = " -> ".join(history) or "nothing yet"
        super().__init__(f"{subject} is {state} and cannot take '{event}'; what happened before: {story}")
