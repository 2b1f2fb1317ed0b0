"""The runner protocol: how the engine talks to a backend.

A runner is an adapter. It is synchronous and works in batches; the engine calls each runner from one thread of its own
and owns intervals, retries and patience. The contract is written as tests in ``scheduler.testing.RunnerContract``,
which every implementation should pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.core.failures import Failure
from scheduler.core.observations import Observation
from scheduler.core.plan import JobId
from scheduler.core.specs import Payload, Resources, StepSpec


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """The dataset that an attempt shall produce, names complete.

    Attributes:
        dataset: Name of the dataset.
        file: Name of the file that each slice leaves in its working directory.
        slices: Number of slices.
        num_events: Events of the whole job.
        num_events_per_job: Events of one slice (the last may have fewer).
    """

    dataset: str
    file: str
    slices: int
    num_events: int
    num_events_per_job: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a job.

    Attributes:
        label: Our unique name of the attempt; a runner makes it findable in its backend.
        payload: What to run.
        arguments: Keyword arguments of the payload.
        directory: Where the attempt's files go. The runner creates it.
        resources: What it may use; None fields take the runner's own limits.
        output: The dataset to produce, if any.
        inputs: Argument name -> dataset name; the payload gets the list of its files.
        returns_result: Whether anybody waits for what the payload returns; the dataset alone is enough otherwise.
        follows: The native id of the attempt whose dataset this one reads, when that is not complete yet: the backend
            holds this one back until it is. Empty otherwise.
        cache: Whether a recorded result of an equal attempt may be taken. Runners need not look at it.
        trial: The trial it belongs to. A backend that has a choice lets older trials, with lower numbers, go first.
    """

    label: str
    payload: Payload
    arguments: Mapping[str, object]
    directory: Path
    resources: Resources = field(default_factory=Resources)
    output: OutputOrder | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    returns_result: bool = True
    follows: str = ""
    cache: bool = False
    trial: int = 0


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """What decides the results of a runner's jobs besides what they run and are given.

    Attributes:
        place: The kind of place where they run.
        text: What the user has done there before they run.
        is_ours: Whether they run with the Python and the packages of this program.
    """

    place: str
    text: str = ""
    is_ours: bool = False


class BaseRunner(ABC):
    """What a backend must be able to do.

    Attributes:
        capacity: How many attempts the engine may have in flight; None when the backend queues by itself. Also bounds
            how many trials run at once when the user does not say.
        waiting_room: How many more the engine may hand over when all places are taken. They wait in the runner, so that
            a place that gets free is filled at once, however busy the engine is; older trials go first.
        stages_inputs: Whether attempts may have ``inputs``.
        stages_outputs: Whether attempts may have an ``output``.
        runs_here: Whether its jobs take the cores of this machine and die with the program.
        appends_outputs: Whether a second attempt adds its files to those that the first one left in the dataset.
        chains_datasets: Whether attempts may follow others, see :class:`Attempt`.
    """

    capacity: int | None = None
    waiting_room: int = 0
    stages_inputs: bool = False
    stages_outputs: bool = False
    runs_here: bool = False
    appends_outputs: bool = False
    chains_datasets: bool = False
    _wake: Callable[[], None] | None = None

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Take the engine's bell. The runner may ring it from any thread to be polled at once."""
        self._wake = wake

    def wake(self) -> None:
        """Ring the bell, if there is one."""
        if self._wake is not None:
            self._wake()

    def check(self, step: StepSpec) -> None:
        """Refuse a step that this runner could never run. Called before anything is run.

        Raises:
            ConfigurationError: With the step's name, what is wrong and what to do.
        """

    def may_be_followed(self, native_id: str) -> bool:  # noqa: ARG002 - an answer for all
        """Whether an attempt may follow this one now, if ``chains_datasets``. Quick, and asked in any thread."""
        return self.chains_datasets

    def environment(self) -> JobEnvironment | None:
        """What decides the results of jobs here, for the cache; None, the default: that is not known."""
        return None

    def contents(self, attempt: Attempt) -> Mapping[str, tuple[str, ...]] | None:  # noqa: ARG002 - an answer for all
        """What is in the datasets that an attempt reads: argument -> digests of the files; None: that is not known.

        Raises:
            DatasetError: A dataset is unknown or not complete.
        """
        return None

    def keep(self, attempt: Attempt, job: JobId, returned: object) -> None:
        """Take note that the engine has accepted a result. Quick, and called in the engine's thread.

        Args:
            attempt: The attempt.
            job: The job that it is an attempt of.
            returned: What the payload returned.
        """

    @abstractmethod
    def submit(self, batch: Sequence[Attempt]) -> dict[str, str | Failure]:
        """Hand attempts to the backend.

        Returns:
            For each label the native id, or the reason why this attempt was refused for good. A label that is left
            out was not submitted and may be submitted again.

        Raises:
            RunnerUnavailableError: Nothing is known about any of them; the engine asks :meth:`find` before it tries
                again.
        """

    @abstractmethod
    def poll(self, attempts: Mapping[str, str]) -> dict[str, Observation]:
        """Look at attempts, given as label -> native id.

        Returns:
            What the backend says, by label. Attempts that it does not mention are left out.

        Raises:
            RunnerUnavailableError: No news; the states of all attempts stay as they are.
        """

    @abstractmethod
    def cancel(self, attempts: Mapping[str, str]) -> None:
        """Ask for attempts to be stopped. The confirmation is an observation of a later :meth:`poll`."""

    @abstractmethod
    def find(self, labels: Sequence[str]) -> dict[str, str]:
        """The native ids of those of these labels that the backend knows."""

    def close(self) -> None:
        """Release what the runner holds. Jobs of a local runner die with it; remote jobs go on. May be called twice."""
