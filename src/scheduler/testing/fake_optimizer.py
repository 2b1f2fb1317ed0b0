"""An optimizer without Ax: proposes numbered points and remembers what it was told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from scheduler.core.specs import Scalar
from scheduler.errors import GenerationError
from scheduler.optimizer import Candidate, Measurement, Preparation, Proposal, Standing


class FakeOptimizer:
    """Proposes ``x = 0, 1, 2, ...`` for one minimized objective.

    Args:
        initial: How many candidates it proposes before it wants the first result.
        parallel: How many candidates may be pending afterwards.
        total: After how many candidates it is complete; None for never.
        fails_at: The index at which proposing raises; None for never.

    Attributes:
        told: What it was told, by trial index, in order.
        failed: The failures it was told, by trial index.
        abandoned: Those of the failed trials whose design it may not propose again.
        infeasible: What it was told of infeasible designs, by trial index: the reason, and the violated constraint.
    """

    name = "fake"
    parameter_names = frozenset({"x"})
    objectives: Mapping[str, bool] = {"objective": True}
    required_metrics = frozenset({"objective"})
    constrained_metrics = frozenset({"limit"})

    def __init__(
        self,
        *,
        initial: int = 1_000_000,
        parallel: int = 1_000_000,
        total: int | None = None,
        fails_at: int | None = None,
    ) -> None:
        self._initial, self._parallel, self._total, self._fails_at = initial, parallel, total, fails_at
        self._candidates: list[Candidate] = []
        self.told: dict[int, Mapping[str, Measurement]] = {}
        self.failed: dict[int, str] = {}
        self.abandoned: list[int] = []
        self.infeasible: dict[int, tuple[str, Mapping[str, Measurement] | None]] = {}

    def ask(self, at_most: int) -> Proposal:
        """See :meth:`scheduler.optimizer.Optimizer.ask`."""
        new: list[Candidate] = []
        while len(new) < at_most:
            index = len(self._candidates)
            if index == self._fails_at:
                raise GenerationError(f"no candidate for trial {index}: the fit failed")
            if index == self._total:
                return Proposal(tuple(new), is_complete=True)
            if not self._may_propose(index):
                return Proposal(tuple(new), must_wait=True)
            new.append(self.attach({"x": float(index)}))
        return Proposal(tuple(new))

    def prepare(self) -> Preparation | None:
        """See :meth:`scheduler.optimizer.Optimizer.prepare`."""
        index = self.next_index
        if index == self._fails_at:
            raise GenerationError(f"no candidate for trial {index}: the fit failed")
        if index == self._total or not self._may_propose(index):
            return None
        return Preparation({"x": float(index)}, None, goes_stale=True)

    @property
    def next_index(self) -> int:
        """See :meth:`scheduler.optimizer.Optimizer.next_index`."""
        return len(self._candidates)

    def at_work(self) -> AbstractContextManager[None]:
        """See :meth:`scheduler.optimizer.Optimizer.at_work`."""
        return nullcontext()

    def attach(self, parameters: Mapping[str, Scalar]) -> Candidate:
        """See :meth:`scheduler.optimizer.Optimizer.attach`."""
        candidate = Candidate(len(self._candidates), dict(parameters))
        self._candidates.append(candidate)
        return candidate

    def candidate(self, index: int) -> Candidate:
        """See :meth:`scheduler.optimizer.Optimizer.candidate`."""
        return self._candidates[index]

    def tell(self, index: int, metrics: Mapping[str, Measurement]) -> None:
        """See :meth:`scheduler.optimizer.Optimizer.tell`."""
        self._require_running(index)
        self.told[index] = dict(metrics)

    def tell_failed(self, index: int, reason: str, *, again: bool = True) -> None:
        """See :meth:`scheduler.optimizer.Optimizer.tell_failed`."""
        self._require_running(index)
        self.failed[index] = reason
        if not again:
            self.abandoned.append(index)

    def tell_infeasible(self, index: int, reason: str, metrics: Mapping[str, Measurement] | None) -> None:
        """See :meth:`scheduler.optimizer.Optimizer.tell_infeasible`."""
        self._require_running(index)
        self.infeasible[index] = reason, metrics

    def standing(self) -> Standing:
        """See :meth:`scheduler.optimizer.Optimizer.standing`."""
        best = min(((metrics["objective"][0], index) for index, metrics in self.told.items()), default=None)
        return Standing("counting", "" if best is None else f"objective {best[0]:g} in trial {best[1]}")

    def best_parameters(self) -> dict[str, Scalar]:
        """See :meth:`scheduler.optimizer.Optimizer.best_parameters`."""
        index = min(self.told, key=lambda index: self.told[index]["objective"][0])
        return dict(self._candidates[index].parameters)

    def pareto(self) -> dict[int, tuple[dict[str, Scalar], object]]:
        """See :meth:`scheduler.optimizer.Optimizer.pareto`. One objective has no Pareto set."""
        return {}

    def snapshot(self) -> str:
        """See :meth:`scheduler.optimizer.Optimizer.snapshot`."""
        return json.dumps([len(self._candidates), len(self.told), len(self.failed)])

    def origin(self, index: int) -> str | None:  # noqa: ARG002 - the number says it all
        """See :meth:`scheduler.optimizer.Optimizer.origin`."""
        return None

    def adopt(self, candidate: Candidate, origin: str | None) -> None:  # noqa: ARG002
        """See :meth:`scheduler.optimizer.Optimizer.adopt`."""
        is_there = candidate.index < len(self._candidates)
        made = self._candidates[candidate.index] if is_there else self.attach(candidate.parameters)
        assert made == candidate, f"{candidate} was adopted as {made}"  # noqa: S101

    def _require_running(self, index: int) -> None:
        assert index < len(self._candidates), f"there is no trial {index}"  # noqa: S101
        is_over = index in self.told or index in self.failed or index in self.infeasible
        assert not is_over, f"trial {index} was told twice"  # noqa: S101

    def _may_propose(self, index: int) -> bool:
        if index < self._initial:
            return True
        finished = len(self.told) + len(self.failed) + len(self.infeasible)
        return len(self.told) > 0 and index - finished < self._parallel
