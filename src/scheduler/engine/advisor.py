"""What the engine does with the optimizer: ask, tell, save its state.

The optimizer is called in its lane only; everything else here runs in the engine's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from scheduler.core.events import Event, TrialStarted, TrialTold
from scheduler.engine.lane import Lane
from scheduler.engine.mailbox import Mailbox
from scheduler.errors import OptimizationError
from scheduler.optimizer import Candidate, Measurement, Optimizer, Proposal, Standing

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


class Advisor:
    """Drives the optimizer.

    Args:
        optimizer: The optimizer.
        lane: Where it is called.
        mailbox: The engine's.

    Attributes:
        standing: How the optimization stood when the optimizer last answered.
        is_asking: Whether a candidate is being computed.
        telling: The trials that it is being told about.
        required_metrics: The metrics that every result must have.
        constrained_metrics: The metrics with outcome constraints.
    """

    def __init__(self, optimizer: Optimizer, lane: Lane, mailbox: Mailbox) -> None:
        self._optimizer, self._lane, self._mailbox = optimizer, lane, mailbox
        self.standing = Standing("", "")
        self.is_asking = False
        self.telling: set[int] = set()
        self.required_metrics = optimizer.required_metrics
        self.constrained_metrics = optimizer.constrained_metrics
        self._save_at = float("-inf")
        self._can_be_saved = True

    def ask(self, then: Callable[[Advice], None], otherwise: Callable[[Exception], None]) -> None:
        """Ask for one candidate: its jobs start while the next one is computed."""
        self.is_asking = True

        def ask() -> tuple[Advice, Standing]:
            proposal = self._optimizer.ask(1)
            origins = {each.index: self._optimizer.origin(each.index) for each in proposal.candidates}
            return Advice(proposal, origins, self._save_if_due()), self._optimizer.standing()

        def answered(answer: tuple[Advice, Standing]) -> None:
            advice, self.standing = answer
            self.is_asking = False
            then(advice)

        def failed(error: Exception) -> None:
            self.is_asking = False
            otherwise(error)

        self._lane.call(ask, answered, failed)

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
            then(snapshot)

        self._lane.call(tell, answered, otherwise)

    def consult(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        """Carry out any call of the optimizer in its lane. It may change what no event tells of, so a save is due."""

        def consult() -> T:
            self._save_at = float("-inf")
            return work()

        self._lane.call(consult, then, otherwise)

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
