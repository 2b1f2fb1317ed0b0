from __future__ import annotations

import pytest

from scheduler.core.results import check_final_result, check_step_result, measurements_of
from scheduler.core.signature import check_call, takes_mapping
from scheduler.core.specs import Dependency, Function, Output, StepSpec, WorkflowSpec
from scheduler.errors import ResultError, WorkflowError

REQUIRED = frozenset({"f"})


def chain(**options):
    return WorkflowSpec(
        (
            StepSpec("sim", Function(print), "r", **options),
            StepSpec("end", Function(print), "r", (Dependency("sim", parameter=None),)),
        ),
        "end",
    )


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        ({"f": 1}, {"f": 1}),
        ({"f": [1.0, 0.1]}, {"f": [1.0, 0.1]}),
        ({"f": 1, "g": 2.5, "note": "fine"}, {"f": 1, "g": 2.5, "note": "fine"}),
        (3.5, {"f": 3.5}),
        ([3.5, None], {"f": [3.5, None]}),
    ],
)
def test_that_numbers_and_pairs_are_results(returned, result):
    assert check_final_result("end", returned, REQUIRED) == result


@pytest.mark.parametrize(
    "returned",
    [None, "text", {}, {"g": 1}, {"f": None}, {"f": "1"}, {"f": [1]}, {"f": [1, -0.1]}, {"f": float("nan")},
     {"f": [1.0, float("nan")]}, {"f": -float("inf")}, {"f": 1, "g": []}, [1, 2, 3], {"f": {"mean": 1}}],
    ids=repr,
)  # fmt: skip
def test_that_everything_else_is_refused(returned):
    with pytest.raises(ResultError):
        check_final_result("end", returned, REQUIRED)


def test_that_a_bare_number_is_ambiguous_with_two_metrics():
    with pytest.raises(ResultError, match="metrics f, g"):
        check_final_result("end", 1.0, frozenset({"f", "g"}))


def test_that_measurements_have_a_mean_and_maybe_an_error():
    assert measurements_of({"f": 1, "g": [2, 0.5], "h": [3, None], "note": "x"}) == {
        "f": (1.0, None),
        "g": (2.0, 0.5),
        "h": (3.0, None),
    }


def test_that_a_producer_of_a_dataset_may_return_nothing():
    workflow = chain(output=Output("user.x.d", "f"))

    assert check_step_result(workflow, "sim", None) == {}


def test_that_a_step_without_dataset_must_return_something():
    with pytest.raises(ResultError, match="step 'sim' returned None"):
        check_step_result(chain(), "sim", None)


def test_that_not_a_number_deep_inside_a_result_is_found_and_named():
    with pytest.raises(ResultError, match=r"'hist\.bins\[1\]' is nan"):
        check_step_result(chain(), "sim", {"hist": {"bins": [1.0, float("nan")]}})


def f_xy(x, y): ...
def f_params(parameterization): ...
def f_kwargs(**kwargs): ...
def f_x_default(x, y, z=1): ...
def f_position(x, y, /): ...
def f_slice(x, y, slice_index): ...
def f_params_and_x(p, x=1): ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [(f_xy, False), (f_params, True), (f_kwargs, False), (f_x_default, False), (f_params_and_x, False)],
)
def test_that_one_unknown_required_parameter_means_a_mapping(function, expected):
    assert takes_mapping(function, frozenset({"x", "y"})) is expected


@pytest.mark.parametrize("function", [f_xy, f_kwargs, f_x_default, f_slice])
def test_that_functions_that_can_be_called_are_taken(function):
    check_call("s", function, frozenset({"x", "y"}))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (f_xy, {"x", "y", "z"}, r"f_xy\(x, y\) does not take 'z'"),
        (f_xy, {"x"}, r"f_xy\(\) wants 'y', which nobody gives"),
        (f_position, {"x", "y"}, r"f_position\(\) takes 'x' by position only"),
    ],
)
def test_that_functions_that_cannot_be_called_are_refused_by_name(function, arguments, message):
    with pytest.raises(WorkflowError, match=f"step 's': {message}"):
        check_call("s", function, frozenset(arguments))
