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
"""

from __future__ import annotations

from collections.abc import Sequence


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
