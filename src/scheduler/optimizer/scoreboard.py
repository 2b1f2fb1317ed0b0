"""The observed results and which of them are best: kept up to date result by result, without asking Ax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler.core.results import Measurement
from scheduler.optimizer.goals import Goals

_MOST_OBJECTIVES_WITH_VOLUME = 3
"""The cost of an exact hypervolume grows with the power of the objectives: too much for a line of progress."""

Point = tuple[float, ...]


class Scoreboard:
    """The results told so far and the front of those that no other result dominates.

    Adding a result costs one comparison with each member of the front; asking for the text costs nothing unless the
    front has changed.

    Args:
        goals: What is optimized.
    """

    def __init__(self, goals: Goals) -> None:
        self._goals = goals
        self._results: dict[int, dict[str, Measurement]] = {}
        self._front: dict[int, Point] = {}
        self._text: str | None = ""

    @property
    def results(self) -> Mapping[int, Mapping[str, Measurement]]:
        """Trial -> its measurements."""
        return self._results

    @property
    def front(self) -> tuple[int, ...]:
        """The trials that no other trial dominates, among those that keep the constraints, in the order they came."""
        return tuple(self._front)

    def add(self, index: int, metrics: Mapping[str, Measurement]) -> None:
        """Take the result of a completed trial, which has all required metrics."""
        self._results[index] = dict(metrics)
        self._text = None
        means = {name: mean for name, (mean, _) in metrics.items()}
        if not self._goals.are_met(means):
            return
        point = self._goals.scores(means)
        if any(_dominates(other, point) for other in self._front.values()):
            return
        self._front = {key: other for key, other in self._front.items() if not _dominates(point, other)}
        self._front[index] = point

    def describe(self) -> str:
        """The best result, or the hypervolume and the size of the Pareto set, in one line; empty without results."""
        if self._text is None:
            self._text = self._describe()
        return self._text

    def _describe(self) -> str:
        if not self._front:
            return f"none of {len(self._results)} results keeps the constraints and thresholds"
        if len(self._goals.axes) == 1:
            best, axis = next(iter(self._front)), self._goals.axes[0]
            means = {name: mean for name, (mean, _) in self._results[best].items()}
            return f"{axis.label} {axis.shown(means):.6g} in trial {best}"
        size = f"{len(self._front)} trial{'s' if len(self._front) > 1 else ''} in the Pareto set"
        reference = self._goals.reference
        if reference is None or len(reference) > _MOST_OBJECTIVES_WITH_VOLUME:
            return size
        return f"hypervolume {hypervolume(list(self._front.values()), reference):.6g}, {size}"


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume between the reference and the points, in the space of scores (more is better).

    Args:
        points: Points that are all greater than the reference in every coordinate.
        reference: The corner from which the volume is measured.
    """
    if not points:
        return 0.0
    if len(reference) == 1:
        return max(point[0] for point in points) - reference[0]
    if len(reference) == 2:  # noqa: PLR2004 - a plane
        return _area(points, reference)
    # Cut into slices at the values of the last coordinate: the section of a slice is the volume, in one dimension
    # less, of all points that reach as high as the slice.
    falling = sorted(points, key=lambda point: point[-1], reverse=True)
    edges = [point[-1] for point in falling[1:]] + [reference[-1]]
    sections = [point[:-1] for point in falling]
    return sum(
        (point[-1] - edge) * hypervolume(sections[:count], reference[:-1])
        for count, (point, edge) in enumerate(zip(falling, edges, strict=True), start=1)
        if point[-1] > edge
    )


def _area(points: Sequence[Point], reference: Point) -> float:
    area, top = 0.0, reference[1]
    for right, height in sorted(points, reverse=True):
        if height > top:
            area += (right - reference[0]) * (height - top)
            top = height
    return area


def _dominates(first: Point, second: Point) -> bool:
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))
