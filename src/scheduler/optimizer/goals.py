"""What is optimized, read once from Ax's optimization config, and how results compare under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ax.core.objective import Objective
    from ax.core.optimization_config import OptimizationConfig
    from ax.core.outcome_constraint import OutcomeConstraint

Terms = tuple[tuple[str, float], ...]
"""A weighted sum of metrics: (name, weight) pairs."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One objective.

    Attributes:
        label: What people call it: the metric's name, or the formula of a weighted sum.
        terms: The weighted sum of metrics that is maximized.
        floor: The score that a result must beat to count, if the user gave a threshold.
    """

    label: str
    terms: Terms
    floor: float | None = None

    def score(self, means: Mapping[str, float]) -> float:
        """How good these results are; more is better."""
        return _sum(self.terms, means)

    def shown(self, means: Mapping[str, float]) -> float:
        """The number that people expect beside the label: the metric as measured, or the value of the formula."""
        return means[self.terms[0][0]] if len(self.terms) == 1 else self.score(means)


@dataclass(frozen=True, slots=True)
class Bound:
    """An outcome constraint with a fixed bound.

    Attributes:
        terms: The weighted sum of metrics that is bounded.
        is_upper: Whether the sum must not be greater (or must not be less) than the value.
        value: The bound.
    """

    terms: Terms
    is_upper: bool
    value: float

    def is_met(self, means: Mapping[str, float]) -> bool:
        """Whether these results keep the bound."""
        total = _sum(self.terms, means)
        return total <= self.value if self.is_upper else total >= self.value


@dataclass(frozen=True, slots=True)
class Goals:
    """What is optimized.

    Constraints relative to a baseline need the baseline's results, which only Ax keeps; they do not count here, where
    nothing but the progress of a run is judged.

    Attributes:
        axes: The objectives.
        bounds: The outcome constraints with fixed bounds.
        minimized: Name of each objective's metric -> whether it is minimized.
        required_metrics: The metrics that every result must have.
        constrained_metrics: The metrics with outcome constraints, fixed or relative.
    """

    axes: tuple[Axis, ...]
    bounds: tuple[Bound, ...]
    minimized: Mapping[str, bool]
    required_metrics: frozenset[str]
    constrained_metrics: frozenset[str]

    def are_met(self, means: Mapping[str, float]) -> bool:
        """Whether these results keep all fixed bounds and beat all thresholds."""
        return all(bound.is_met(means) for bound in self.bounds) and all(
            axis.floor is None or axis.score(means) > axis.floor for axis in self.axes
        )

    def break_no_bound(self, means: Mapping[str, float]) -> bool:
        """Whether some of the metrics are enough to know a bound, and all bounds known so are kept."""
        known = [bound for bound in self.bounds if all(name in means for name, _ in bound.terms)]
        return bool(known) and all(bound.is_met(means) for bound in known)

    def scores(self, means: Mapping[str, float]) -> tuple[float, ...]:
        """How good these results are, objective by objective; more is better."""
        return tuple(axis.score(means) for axis in self.axes)

    @property
    def reference(self) -> tuple[float, ...] | None:
        """The scores from which a hypervolume is measured; None unless every objective has a threshold."""
        floors = tuple(axis.floor for axis in self.axes if axis.floor is not None)
        return floors if len(floors) == len(self.axes) else None


def read_goals(config: OptimizationConfig) -> Goals:
    """Read Ax's optimization config: the same for both clients, whatever the age of the API that built it."""
    objective = config.objective
    thresholds = {
        threshold.metric_names[0]: threshold.bound
        for threshold in (config.objective_thresholds if objective.is_multi_objective else ())
        if not threshold.relative
    }
    sums = _sums(objective)
    return Goals(
        axes=tuple(Axis(_label(objective, terms), terms, _floor(terms, thresholds)) for terms in sums),
        bounds=tuple(_bound(constraint) for constraint in config.outcome_constraints if not constraint.relative),
        minimized={name: weight < 0 for terms in sums for name, weight in terms},
        required_metrics=frozenset(config.metric_names),
        constrained_metrics=frozenset(name for each in config.outcome_constraints for name in each.metric_names),
    )


def _sums(objective: Objective) -> tuple[Terms, ...]:
    if not objective.is_multi_objective:
        return (_terms(objective),)
    # Ax has no public way to tell which metrics form one objective ("a + b, c"), and the text cannot be split safely:
    # names of metrics may contain commas.
    parsed: list[list[tuple[str, float]]] = objective._parsed[1]  # noqa: SLF001
    return tuple(tuple(terms) for terms in parsed)


def _terms(weighted: Objective | OutcomeConstraint) -> Terms:
    # Ax gives the weights under the signatures of the metrics, in the order of their names.
    return tuple(
        (name, weight) for name, (_, weight) in zip(weighted.metric_names, weighted.metric_weights, strict=True)
    )


def _label(objective: Objective, terms: Terms) -> str:
    if len(terms) == 1:
        return terms[0][0]
    if not objective.is_multi_objective:
        return objective.expression
    return " + ".join(f"{weight:g}*{name}" for name, weight in terms)


def _floor(terms: Terms, thresholds: Mapping[str, float]) -> float | None:
    name, weight = terms[0]
    return weight * thresholds[name] if len(terms) == 1 and name in thresholds else None


def _bound(constraint: OutcomeConstraint) -> Bound:
    return Bound(terms=_terms(constraint), is_upper=constraint.op.name == "LEQ", value=constraint.bound)


def _sum(terms: Terms, means: Mapping[str, float]) -> float:
    return sum(weight * means[name] for name, weight in terms)
