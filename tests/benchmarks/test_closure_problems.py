"""The closure tests measure against closed forms: these are the right ones."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest

CLOSURE = Path(__file__).parents[2] / "benchmarks" / "closure"


@pytest.fixture(scope="module")
def closure():
    spec = importlib.util.spec_from_file_location("closure_problems", CLOSURE / "problems.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def evaluate(closure, name, design):
    return closure.merge(name, design, [closure.part(name, design, number) for number in closure.PARTS])


def on_the_front(x0):
    return {"x0": x0, **{f"x{i}": 0.5 for i in range(1, 5)}}


@pytest.mark.parametrize("x0", [0.0, 0.3, 0.5, 1.0])
def test_that_the_front_of_dtlz2_is_the_quarter_of_the_unit_circle(closure, x0):
    result = evaluate(closure, "dtlz2", on_the_front(x0))
    beside = evaluate(closure, "dtlz2", {**on_the_front(x0), "x3": 0.9})

    assert result["f1"] ** 2 + result["f2"] ** 2 == pytest.approx(1)
    assert beside["f1"] ** 2 + beside["f2"] ** 2 > 1.1


def test_that_no_set_of_designs_of_dtlz2_exceeds_the_largest_hypervolume_and_its_front_comes_close(closure):
    problem = closure.PROBLEMS["dtlz2"]

    volume = problem.volume([evaluate(closure, "dtlz2", on_the_front(number / 400)) for number in range(401)])

    assert problem.best == pytest.approx(0.424602, abs=1e-6)
    assert 0.99 * problem.best < volume < problem.best


@pytest.mark.parametrize(("x0", "is_feasible"), [(0.0, True), (0.25, False), (0.5, True), (0.75, False), (1.0, True)])
def test_that_c2_dtlz2_is_feasible_at_the_ends_and_in_the_middle_of_the_front(closure, x0, is_feasible):
    assert (evaluate(closure, "c2dtlz2", on_the_front(x0))["c2"] >= 0) is is_feasible


def test_that_infeasible_results_add_no_hypervolume(closure):
    infeasible = evaluate(closure, "c2dtlz2", on_the_front(0.25))

    assert closure.PROBLEMS["c2dtlz2"].volume([infeasible]) == 0.0
    assert closure.PROBLEMS["dtlz2"].volume([infeasible]) > 0.0


def test_that_branin_and_currin_have_their_known_values(closure):
    minimum = evaluate(closure, "branincurrin", {"x0": (math.pi + 5) / 15, "x1": 2.275 / 15})
    corner = evaluate(closure, "branincurrin", {"x0": 1.0, "x1": 1.0})

    assert minimum["f1"] == pytest.approx(0.397887, abs=1e-5)
    assert corner["f2"] == pytest.approx((1 - math.exp(-0.5)) * 6352 / 624)
