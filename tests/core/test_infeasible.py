from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import Infeasible
from scheduler.core.infeasible import Infeasibility, read_infeasibility

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.text(max_size=250), st.text(min_size=1), NUMBERS, st.none() | NUMBERS.map(abs), st.text(), st.text())
def test_that_it_survives_any_transport_of_its_text(reason, constraint, mean, error, before, after):
    raised = Infeasible(reason, constraint=constraint, value=mean if error is None else (mean, error))

    found = read_infeasibility(f"{before.replace('#infeasible', '')} Infeasible: {raised} {after}")

    assert found == Infeasibility(reason, {constraint: (mean, error)})


def test_that_people_read_the_reason_first():
    assert str(Infeasible("layers overlap")) == 'layers overlap #infeasible{"reason": "layers overlap"}'


def test_that_an_exception_of_another_kind_can_say_the_same():
    assert read_infeasibility('RuntimeError: #infeasible{"reason": "too heavy"}') == Infeasibility("too heavy")


@pytest.mark.parametrize(
    "message",
    [
        "ValueError: no beam",
        "#infeasible",
        "#infeasible{",
        '#infeasible{"reason": "cut o',
        "#infeasible[1]",
        "#infeasible{}",
        '#infeasible{"reason": "r", "constraint": "c"}',
        '#infeasible{"reason": "r", "constraint": "c", "value": "much"}',
        '#infeasible{"reason": "r", "constraint": "c", "value": NaN}',
        '#infeasible{"reason": "r", "constraint": "c", "value": [1, -1]}',
        '#infeasible{"reason": "r", "constraint": "c", "value": [1, 2, 3]}',
    ],
)
def test_that_any_other_text_is_an_exception_like_any_other(message):
    assert read_infeasibility(message) is None


@pytest.mark.parametrize("half", [{"constraint": "c"}, {"value": 1.0}])
def test_that_a_constraint_comes_with_its_value(half):
    with pytest.raises(TypeError, match="give constraint and value, or neither"):
        Infeasible("why", **half)


def test_that_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert read_infeasibility(str(Infeasible("r", constraint="c", value=numpy.float64(0.5)))).metrics == {
        "c": (0.5, None)
    }


def test_that_it_can_be_raised_and_caught_with_its_parts():
    with pytest.raises(Infeasible) as caught:
        raise Infeasible("r", constraint="c", value=2)
    assert (caught.value.reason, caught.value.constraint, caught.value.value) == ("r", "c", 2)
    assert str(pickle.loads(pickle.dumps(RuntimeError(str(caught.value))))) == str(caught.value)  # noqa: S301


def test_that_it_is_pickled_by_its_parts():
    raised = Infeasible("r", constraint="c", value=(1.0, 0.5))
    again = pickle.loads(pickle.dumps(raised))  # noqa: S301
    assert (str(again), again.reason, again.constraint, again.value) == (str(raised), "r", "c", (1.0, 0.5))


@pytest.mark.parametrize("letter", ["x", "\u4e2d", '"'])
def test_that_a_long_reason_is_shortened_rather_than_lost_where_messages_are_cut(letter):
    raised = Infeasible(letter * 5000, constraint="c", value=1.0)
    found = read_infeasibility(str(raised)[:2000])
    assert found == Infeasibility(letter * 247 + "...", {"c": (1.0, None)})


def test_that_a_reason_may_have_the_mark():
    assert read_infeasibility(str(Infeasible("see #infeasible in the docs"))).reason == "see #infeasible in the docs"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), (1.0, -1.0), (1.0, 2.0, 3.0)])
def test_that_a_value_that_cannot_be_told_is_refused_where_it_is_raised(value):
    with pytest.raises(ValueError, match="give a finite number"):
        Infeasible("r", constraint="c", value=value)
