"""The optimizer port: what the engine needs of an optimizer.

An optimizer is not thread-safe: the engine makes all calls from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from scheduler.core.results import Measurement
from scheduler.core.specs import Scalar


@dataclass(frozen=True, slots=True)
class Candidate:
    """A design to evaluate.

    Attributes:
        index: The optimizer's number of the trial.
        parameters: The design parameters.
    """

    index: int
    parameters: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Proposal:
    """The answer to a request for candidates.

    Attributes:
        candidates: New candidates, possibly none.
        must_wait: The optimizer wants more results before it proposes more; ask again after the next tell.
        is_complete: The optimizer will never propose anything more.
    """

    candidates: tuple[Candidate, ...] = ()
    must_wait: bool = False
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Preparation:
    """A design made ahead: the optimizer has no trial of it until :meth:`Optimizer.adopt`.

    Attributes:
        parameters: The design parameters.
        origin: How it came about, for :meth:`Optimizer.adopt`.
        goes_stale: Whether newer results could have led to a better one.
    """

    parameters: Mapping[str, Scalar]
    origin: str | None
    goes_stale: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How the optimization stands, computed from observed data without fitting a model.

    Attributes:
        phase: Name of the current generation node or step, in words.
        best: The best observed result in one line ("objective 0.0123 in trial 7"), or the hypervolume and the size of
            the Pareto set for several objectives; empty without data.
    """

    phase: str
    best: str


class Optimizer(Protocol):
    """What the engine needs of an optimizer."""

    @property
    def name(self) -> str:
        """Name of the experiment."""
        ...

    @property
    def parameter_names(self) -> frozenset[str]:
        """Names of the design parameters."""
        ...

    @property
    def objectives(self) -> Mapping[str, bool]:
        """Objective name -> whether it is minimized."""
        ...

    @property
    def required_metrics(self) -> frozenset[str]:
        """The metrics every result must have: objectives and constrained outcomes."""
        ...

    @property
    def constrained_metrics(self) -> frozenset[str]:
        """The metrics with outcome constraints."""
        ...

    def ask(self, at_most: int) -> Proposal:
        """Propose up to ``at_most`` candidates, as many as the generation strategy allows now.

        Raises:
            GenerationError: The optimizer failed, with its own exception as the cause. Never read as completion.
        """
        ...

    def prepare(self) -> Preparation | None:
        """Make one design ahead, with the trials that run as pending, without making a trial of it.

        It may be forgotten without a trace. None when the generation strategy allows none now.

        Raises:
            GenerationError: The optimizer failed.
        """
        ...

    @property
    def next_index(self) -> int:
        """The number that the next trial will have."""
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """What all calls are made within: limits on what the optimizer takes of the machine."""
        ...

    def attach(self, parameters: Mapping[str, Scalar]) -> Candidate:
        """Register a design that the user chose."""
        ...

    def candidate(self, index: int) -> Candidate:
        """The candidate of an existing trial."""
        ...

    def tell(self, index: int, metrics: Mapping[str, Measurement]) -> None:
        """Complete a trial with its measurements. Unknown names are kept as tracking metrics."""
        ...

    def tell_failed(self, index: int, reason: str, *, again: bool) -> None:
        """Mark a trial as failed.

        Args:
            index: The trial.
            reason: Why.
            again: Whether the same design may be proposed again.
        """
        ...

    def tell_infeasible(self, index: int, reason: str, metrics: Mapping[str, Measurement] | None) -> None:
        """End a trial whose design is infeasible; it is not proposed again.

        Args:
            index: The trial.
            reason: Why.
            metrics: The measurement of the violated constraint, to learn from; None when none was named.
        """
        ...

    def standing(self) -> Standing:
        """How the optimization stands."""
        ...

    def snapshot(self) -> str:
        """The whole state as a text from which it can be restored."""
        ...

    def origin(self, index: int) -> str | None:
        """How a trial came about, as a short text for :meth:`adopt`."""
        ...

    def adopt(self, candidate: Candidate, origin: str | None) -> None:
        """Make a trial again that was made after the state was saved from which this optimizer was restored."""
        ...

    def best_parameters(self) -> dict[str, Scalar]:
        """The best parameters (single objective)."""
        ...

    def pareto(self) -> dict[int, tuple[dict[str, Scalar], object]]:
        """The Pareto set (several objectives), as Ax's ``get_pareto_optimal_parameters`` gives it."""
        ...
