"""The test problems, in closed form, and how good a set of results is.

* DTLZ2: Deb, Thiele, Laumanns, Zitzler, "Scalable test problems for evolutionary multiobjective optimization" (2005).
  Its Pareto front for two objectives is the quarter of the unit circle, so the largest hypervolume is the box of the
  reference point less the quarter disc.
* C2-DTLZ2: Jain, Deb, "An evolutionary many-objective optimization algorithm using reference-point based nondominated
  sorting approach, part II" (2014): only designs near the ends or the middle of the front are feasible.
* BraninCurrin: two objectives on the unit square, as in BoTorch's test functions; hypervolume 59.36 for the reference
  (18, 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.optimizer.scoreboard import hypervolume

PARTS = (0, 1, 2, 3)
"""The points of the fan-out: each computes a part of the problem."""


@dataclass(frozen=True)
class Problem:
    """A problem with two minimized objectives, ``f1`` and ``f2``.

    Attributes:
        dimensions: Number of parameters ``x0``, ``x1``, ... in [0, 1].
        reference: The objectives' worst values that count.
        best: The largest hypervolume.
        constraint: The name of the constraint (feasible when not negative); None without one.
        noise: Standard errors of the objectives; None without noise.
        initial: Quasi-random trials at the beginning.
    """

    dimensions: int
    reference: tuple[float, float]
    best: float
    constraint: str | None = None
    noise: tuple[float, float] | None = None
    initial: int = 12

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"x{i}" for i in range(self.dimensions))

    def volume(self, results: Sequence[Mapping[str, float]]) -> float:
        """The hypervolume of those results that keep the constraint."""
        points = [
            (-result["f1"], -result["f2"])
            for result in results
            if (self.constraint is None or result[self.constraint] >= 0)
            and result["f1"] < self.reference[0]
            and result["f2"] < self.reference[1]
        ]
        return hypervolume(points, (-self.reference[0], -self.reference[1]))


_QUARTER = 1.1**2 - math.pi / 4

PROBLEMS = {
    "dtlz2": Problem(5, (1.1, 1.1), _QUARTER),
    "c2dtlz2": Problem(5, (1.1, 1.1), _QUARTER, constraint="c2"),
    "branincurrin": Problem(2, (18.0, 6.0), 59.36, noise=(15.19, 0.63), initial=6),
}


def part(name: str, design: Mapping[str, float], number: int) -> float:
    """One of four parts of a problem."""
    if name == "branincurrin":
        return _branin_currin_part(design["x0"], design["x1"], number)
    return (design[f"x{number + 1}"] - 0.5) ** 2


def merge(name: str, design: Mapping[str, float], parts: Sequence[float]) -> dict[str, float]:
    """The objectives, and the constraint if there is one, without noise."""
    if name == "branincurrin":
        return {"f1": parts[0] + parts[1], "f2": parts[2] * parts[3]}
    scale, angle = 1 + sum(parts), design["x0"] * math.pi / 2
    f1, f2 = scale * math.cos(angle), scale * math.sin(angle)
    return {"f1": f1, "f2": f2, **({"c2": c2(f1, f2)} if name == "c2dtlz2" else {})}


def c2(f1: float, f2: float, radius: float = 0.2) -> float:
    """Not negative near one end of the front, near the other, or near its middle."""
    ends = [(f1 - 1) ** 2 + f2**2, (f2 - 1) ** 2 + f1**2]
    middle = (f1 - 1 / math.sqrt(2)) ** 2 + (f2 - 1 / math.sqrt(2)) ** 2
    return radius**2 - min(*ends, middle)


def _branin_currin_part(x0: float, x1: float, number: int) -> float:
    u, v = 15 * x0 - 5, 15 * x1
    match number:
        case 0:
            return (v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6) ** 2
        case 1:
            return 10 * (1 - 1 / (8 * math.pi)) * math.cos(u) + 10
        case 2:
            return 1 - math.exp(-1 / (2 * x1)) if x1 > 0 else 1.0
        case _:
            numerator = 2300 * x0**3 + 1900 * x0**2 + 2092 * x0 + 60
            return numerator / (100 * x0**3 + 500 * x0**2 + 4 * x0 + 20)
