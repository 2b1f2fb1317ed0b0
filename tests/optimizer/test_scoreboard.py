"""The best of the observed results: pure, without Ax."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from scheduler.optimizer.goals import Axis, Bound, Goals
from scheduler.optimizer.scoreboard import Scoreboard, hypervolume


def goals(*axes: Axis, bounds: tuple[Bound, ...] = ()) -> Goals:
    metrics = {name: weight < 0 for axis in axes for name, weight in axis.terms}
    return Goals(
        axes=axes,
        bounds=bounds,
        minimized=metrics,
        required_metrics=frozenset(metrics),
        constrained_metrics=frozenset(),
    )


def axis(name: str, weight: float = -1.0, floor: float | None = None) -> Axis:
    return Axis(label=name, terms=((name, weight),), floor=floor)


def fill(board: Scoreboard, *results: dict[str, float]) -> Scoreboard:
    for index, result in enumerate(results):
        board.add(index, {name: (mean, None) for name, mean in result.items()})
    return board


def test_that_nothing_is_said_without_results():
    assert Scoreboard(goals(axis("f"))).describe() == ""


def test_that_the_smallest_is_best_when_minimizing_and_the_greatest_when_maximizing():
    results = [{"f": 2.0}, {"f": 0.5}, {"f": 3.0}]

    assert fill(Scoreboard(goals(axis("f", -1.0))), *results).describe() == "f 0.5 in trial 1"
    assert fill(Scoreboard(goals(axis("f", 1.0))), *results).describe() == "f 3 in trial 2"


def test_that_the_first_of_equal_results_stays_the_best():
    assert fill(Scoreboard(goals(axis("f"))), {"f": 1.0}, {"f": 1.0}).describe() == "f 1 in trial 0"


def test_that_a_weighted_sum_is_shown_with_its_formula():
    both = Axis(label="2*a - b", terms=(("a", 2.0), ("b", -1.0)))

    board = fill(Scoreboard(goals(both)), {"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.5})

    assert board.describe() == "2*a - b 2.5 in trial 1"


def test_that_results_outside_the_constraints_are_not_best():
    upper = Bound(terms=(("h", 1.0),), is_upper=True, value=3.0)
    lower = Bound(terms=(("h", 1.0),), is_upper=False, value=1.0)
    board = Scoreboard(goals(axis("f"), bounds=(upper, lower)))

    fill(board, {"f": 0.0, "h": 3.5}, {"f": 0.0, "h": 0.5})
    assert board.describe() == "none of 2 results keeps the constraints and thresholds"
    board.add(2, {"f": (9.0, None), "h": (3.0, None)})
    assert board.describe() == "f 9 in trial 2"


def test_that_the_size_of_the_pareto_set_is_said_for_several_objectives():
    board = Scoreboard(goals(axis("f"), axis("g", 1.0)))

    fill(board, {"f": 1.0, "g": 1.0})
    assert board.describe() == "1 trial in the Pareto set"
    board.add(1, {"f": (2.0, None), "g": (2.0, None)})
    board.add(2, {"f": (2.0, None), "g": (1.5, None)})
    assert board.describe() == "2 trials in the Pareto set"
    assert board.front == (0, 1)


def test_that_the_hypervolume_is_said_when_all_objectives_have_thresholds():
    board = Scoreboard(goals(axis("f", -1.0, floor=-4.0), axis("g", 1.0, floor=0.0)))

    fill(board, {"f": 1.0, "g": 2.0}, {"f": 2.0, "g": 3.0}, {"f": 5.0, "g": 9.0})

    assert board.describe() == "hypervolume 8, 2 trials in the Pareto set"


def test_that_one_threshold_of_two_gives_no_hypervolume():
    board = Scoreboard(goals(axis("f", -1.0, floor=-4.0), axis("g", 1.0)))

    assert fill(board, {"f": 1.0, "g": 2.0}).describe() == "1 trial in the Pareto set"


points_of = {
    dimensions: st.lists(st.tuples(*[st.integers(1, 5)] * dimensions), max_size=8) for dimensions in (1, 2, 3, 4)
}


@given(st.sampled_from([1, 2, 3, 4]).flatmap(lambda dimensions: points_of[dimensions].map(lambda p: (dimensions, p))))
def test_that_the_hypervolume_is_the_number_of_unit_cubes_below_the_points(case):
    dimensions, points = case
    cubes = product(range(5), repeat=dimensions)
    covered = sum(any(all(c < p for c, p in zip(cube, point, strict=True)) for point in points) for cube in cubes)

    assert hypervolume(points, (0.0,) * dimensions) == covered


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_that_the_front_are_the_results_that_no_other_dominates(results):
    board = fill(
        Scoreboard(goals(axis("a"), axis("b", 1.0), axis("c"))),
        *({"a": -a, "b": b, "c": -c} for a, b, c in results),
    )

    expected = {
        index
        for index, one in enumerate(results)
        if not any(other != one and all(o >= p for o, p in zip(other, one, strict=True)) for other in results)
    }
    assert set(board.front) == expected
