"""What the engine does with the optimizer: ask, tell, save its state.

The optimizer is called in its lane only; everything else here runs in the engine's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from scheduler.core.events import Event, TrialStarted, TrialTold
from scheduler.engine.lane import Lane
from scheduler.engine.mailbox import Mailbox
from scheduler.errors import OptimizationError
from scheduler.optimizer import Candidate, Measurement, Optimizer, Preparation, Proposal, Standing

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SNAPSHOT_PAUSE = 50.0
"""The optimizer's state is saved again only when this many times its last cost has passed."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the optimizer answered.

    Attributes:
        proposal: The candidates.
        origins: Trial -> how the optimizer came to it, for :meth:`Advisor.bring_up_to_date`.
        snapshot: The optimizer's state afterwards, when it was time to save it.
    """

    proposal: Proposal
    origins: Mapping[int, str | None]
    snapshot: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the optimizer is told about a trial.

    Attributes:
        trial: Its index.
        metrics: The measurements; None for a failure. Of an infeasible design that of the violated constraint, if any.
        failure: Why it failed; None when it did not.
        again: Whether the design of a failed trial may be proposed again.
        infeasible: Why the design is infeasible; None when it is not.
    """

    trial: int
    metrics: Mapping[str, Measurement] | None = None
    failure: str | None = None
    again: bool = True
    infeasible: str | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """A candidate that was made ahead.

    Attributes:
        made: What the optimizer made.
        results: How many results it had been told.
    """

    made: Preparation
    results: int


class Advisor:
    """Drives the optimizer.

    Args:
        optimizer: The optimizer.
        lane: Where it is called.
        mailbox: The engine's.

    Attributes:
        standing: How the optimization stood when the optimizer last answered.
        is_asking: Whether a candidate is being computed.
        is_preparing: Whether one is being computed ahead.
        reserve: The candidate that was computed ahead, if any.
        telling: The trials that it is being told about.
        required_metrics: The metrics that every result must have.
        constrained_metrics: The metrics with outcome constraints.
    """

    def __init__(self, optimizer: Optimizer, lane: Lane, mailbox: Mailbox) -> None:
        self._optimizer, self._lane, self._mailbox = optimizer, lane, mailbox
        self.standing = Standing("", "")
        self.is_asking = self.is_preparing = False
        self.reserve: Reserve | None = None
        self.telling: set[int] = set()
        self.required_metrics = optimizer.required_metrics
        self.constrained_metrics = optimizer.constrained_metrics
        self._save_at = float("-inf")
        self._can_be_saved = True
        self._calls = self._adoptions = self._consultations = 0  # whose answers are not here yet
        self._next_index = -1

    def ask(self, then: Callable[[Advice], None], otherwise: Callable[[Exception], None]) -> None:
        """Ask for one candidate: its jobs start while the next one is computed."""
        self.is_asking = True

        def ask() -> tuple[Advice, Standing, int]:
            proposal = self._optimizer.ask(1)
            origins = {each.index: self._optimizer.origin(each.index) for each in proposal.candidates}
            advice = Advice(proposal, origins, self._save_if_due())
            return advice, self._optimizer.standing(), self._optimizer.next_index

        def answered(answer: tuple[Advice, Standing, int]) -> None:
            advice, self.standing, self._next_index = answer
            self.is_asking = False
            then(replace(advice, snapshot=self._if_complete(advice.snapshot)))

        def failed(error: Exception) -> None:
            self.is_asking = False
            otherwise(error)

        self._call(ask, answered, failed)

    def prepare(self, results: int, then: Callable[[], None], otherwise: Callable[[Exception], None]) -> None:
        """Have one candidate computed ahead; it becomes the reserve.

        Args:
            results: How many results the optimizer has been told.
            then: Called when it is there, or when the optimizer has none.
            otherwise: Called with what went wrong.
        """
        self.is_preparing = True

        def prepare() -> tuple[Preparation | None, Standing, int]:
            return self._optimizer.prepare(), self._optimizer.standing(), self._optimizer.next_index

        def answered(answer: tuple[Preparation | None, Standing, int]) -> None:
            made, self.standing, self._next_index = answer
            self.is_preparing = False
            self.reserve = None if made is None else Reserve(made, results)
            then()

        def failed(error: Exception) -> None:
            self.is_preparing = False
            otherwise(error)

        self._call(prepare, answered, failed)

    @property
    def is_busy(self) -> bool:
        """Whether the optimizer is called, or will be: only we may use it then."""
        return self._calls > 0

    @property
    def is_thinking(self) -> bool:
        """Whether a candidate is being computed, for now or ahead."""
        return self.is_asking or self.is_preparing

    @property
    def can_start(self) -> bool:
        """Whether there is a reserve, and the number of its trial is certain."""
        return self.reserve is not None and not self._consultations

    def start(self, otherwise: Callable[[Exception], None]) -> tuple[Candidate, str | None]:
        """Make the reserve a candidate now; the optimizer takes it when it gets to it.

        Args:
            otherwise: Called with what went wrong, if it did not take it.

        Returns:
            The candidate, and how it came about.
        """
        assert self.reserve is not None  # noqa: S101 - see can_start
        made, self.reserve = self.reserve.made, None
        candidate = Candidate(self._next_index, made.parameters)
        self._next_index += 1
        self._adoptions += 1

        def adopted(_: None) -> None:
            self._adoptions -= 1

        self._call(lambda: self._optimizer.adopt(candidate, made.origin), adopted, otherwise)
        return candidate, made.origin

    def tell(
        self, outcome: Outcome, then: Callable[[str | None], None], otherwise: Callable[[Exception], None]
    ) -> None:
        """Tell the optimizer about a trial; ``then`` gets its state afterwards, when it was time to save it."""
        self.telling.add(outcome.trial)

        def tell() -> tuple[Standing, str | None]:
            self._pass_on(outcome)
            return self._optimizer.standing(), self._save_if_due()

        def answered(answer: tuple[Standing, str | None]) -> None:
            self.standing, snapshot = answer
            self.telling.discard(outcome.trial)
            then(self._if_complete(snapshot))

        self._call(tell, answered, otherwise)

    def consult(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        """Carry out any call of the optimizer in its lane. It may change what no event tells of, so a save is due."""
        self._consultations += 1

        def consult() -> tuple[T, int]:
            self._save_at = float("-inf")
            return work(), self._optimizer.next_index

        def answered(answer: tuple[T, int]) -> None:
            self._consultations -= 1
            value, self._next_index = answer
            then(value)

        def failed(error: Exception) -> None:
            self._consultations -= 1
            self.reserve = None  # nobody knows whether there is a new trial: its number is not certain any more
            otherwise(error)

        self._call(consult, answered, failed)

    def save(self) -> str | None:
        """The optimizer's state; called in its lane. None when it cannot be saved at all."""
        if not self._can_be_saved:
            return None
        start = self._mailbox.monotonic()
        try:
            snapshot = self._optimizer.snapshot()
        except OptimizationError as error:
            self._can_be_saved = False
            logger.warning("this run cannot be resumed: %s", error)
            return None
        end = self._mailbox.monotonic()
        self._save_at = end + _SNAPSHOT_PAUSE * (end - start)
        return snapshot

    def bring_up_to_date(self, event: Event, *, again: bool) -> None:
        """Repeat what happened after the state was saved that the optimizer was restored from.

        Args:
            event: The event; most kinds do not concern the optimizer.
            again: For a failed trial: whether its design may be proposed again.
        """
        match event:
            case TrialStarted():
                self._optimizer.adopt(Candidate(event.trial, event.parameters), event.origin)
            case TrialTold():
                self._pass_on(Outcome(event.trial, event.metrics, event.failure, again, event.infeasible))
            case _:
                pass

    def _call(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        def at_work() -> T:
            with self._optimizer.at_work():
                return work()

        def answered(value: T) -> None:
            self._calls -= 1
            then(value)

        def failed(error: Exception) -> None:
            self._calls -= 1
            otherwise(error)

        self._calls += 1
        self._lane.call(at_work, answered, failed)

    def _if_complete(self, snapshot: str | None) -> str | None:
        """The snapshot, unless a trial has been started meanwhile that it does not have: it would be missing later."""
        if snapshot is not None and self._adoptions:
            self._save_at = float("-inf")
            return None
        return snapshot

    def _pass_on(self, outcome: Outcome) -> None:
        if outcome.infeasible is not None:
            self._optimizer.tell_infeasible(outcome.trial, outcome.infeasible, outcome.metrics)
        elif outcome.metrics is not None:
            self._optimizer.tell(outcome.trial, outcome.metrics)
        else:
            self._optimizer.tell_failed(outcome.trial, outcome.failure or "failed", again=outcome.again)

    def _save_if_due(self) -> str | None:
        """The optimizer's state, or None when saving it now would cost too much.

        Nothing is lost by that: what events say about trials begun and told brings an older state up to date.
        """
        return self.save() if self._mailbox.monotonic() >= self._save_at else None
