from __future__ import annotations

import pytest

from scheduler.core.specs import (
    Dependency,
    DependencyKind,
    DependencyMap,
    Function,
    Output,
    Resources,
    RetryPolicy,
    StepSpec,
    WorkflowSpec,
)
from scheduler.errors import WorkflowError


def step(name, *dependencies, **options):
    return StepSpec(name, Function(print), "r", tuple(dependencies), **options)


def on(parent, **options):
    return Dependency(parent, **options)


@pytest.mark.parametrize(
    ("steps", "final", "points", "message"),
    [
        ((), "a", {}, "at least one step"),
        ((step("a"), step("a")), "a", {}, "defined twice: a"),
        ((step("a/b"),), "a/b", {}, "step name 'a/b'"),
        ((step("a", on("b")),), "a", {}, "step 'a' depends on 'b', which is no step; the steps are a"),
        ((step("a"), step("b", on("a"), on("a"))), "b", {}, "parent 'a' twice"),
        ((step("a", on("c")), step("b", on("a")), step("c", on("b"))), "c", {}, "circle: a -> c -> b -> a"),
        ((step("root"), step("a", on("a"))), "a", {}, "circle: a -> a"),
        ((step("a"),), "b", {}, "final is 'b', which is no step"),
        ((step("a", fans_out=True),), "a", {"p": (1, 2)}, "final step 'a' has one job per combination"),
        ((step("a", fans_out=True),), "a", {}, "there are no global_parameters"),
        ((step("a", returns_result=False),), "a", {}, "return_func_results=True"),
        ((step("a", fans_out=True), step("b", on("a"))), "b", {"p": (1, 2)}, "use dep_map 'all2one'"),
        ((step("a"), step("b", on("a", kind=DependencyKind.DATASETS))), "b", {}, "'a', which produces none"),
        (
            (step("a", returns_result=False), step("b", on("a", parameter="v"))),
            "b",
            {},
            "needs 'v' of 'a', whose return_func_results is False",
        ),
        (
            (step("a"), step("b"), step("c", on("a", parameter="v"), on("b", parameter="v"))),
            "c",
            {},
            "the argument 'v' from several parents",
        ),
        (
            (step("a", output=Output("user.x.a", "out"), cache=True),),
            "a",
            {},
            "step 'a' has cache=True and produces a dataset",
        ),
        ((step("a", speculative=True),), "a", {}, "step 'a' has speculative=True but one job per trial"),
        (
            (step("a", speculative=True, fans_out=True, output=Output("user.x.a", "out")),),
            "a",
            {"p": (1,)},
            "step 'a' has speculative=True and produces a dataset",
        ),
        (
            (step("a", speculative=True, fans_out=True, inputs={"files": "user.x.a"}),),
            "a",
            {"p": (1,)},
            "step 'a' has speculative=True and reads a dataset",
        ),
        (
            (
                step("a", output=Output("user.x.a", "out")),
                step("b", on("a", kind=DependencyKind.DATASETS), speculative=True, fans_out=True),
            ),
            "b",
            {"p": (1,)},
            "step 'b' has speculative=True and reads a dataset",
        ),
        ((step("a"),), "a", {"p": ()}, "global parameter 'p' has no values"),
        ((step("a"),), "a", {"p": (1, 1)}, "global parameter 'p' has a value twice"),
    ],
)
def test_that_a_graph_that_is_not_sound_is_refused_with_its_names(steps, final, points, message):
    with pytest.raises(WorkflowError, match=message):
        WorkflowSpec(steps, final, points)


def test_that_several_roots_a_diamond_and_lists_of_parents_are_sound():
    workflow = WorkflowSpec(
        (
            step("end", on("left", parameter="l"), on("right", parameter="r"), on("other")),
            step("left", on("top")),
            step("right", on("top")),
            step("top"),
            step("other"),
        ),
        "end",
    )

    assert [each.name for each in workflow.steps] == ["top", "other", "left", "right", "end"]
    assert workflow.needed_metrics("left") == {"l"}
    assert [each.name for each in workflow.children("top")] == ["left", "right"]


def test_that_a_fanned_final_step_with_one_combination_has_one_job_and_is_sound():
    assert WorkflowSpec((step("a", fans_out=True),), "a", {"p": (1,)}).final == "a"


def test_that_an_all2one_child_may_merge_points():
    merge = on("a", mapping=DependencyMap.ALL2ONE)
    assert WorkflowSpec((step("a", fans_out=True), step("b", merge)), "b", {"p": (1, 2)})


@pytest.mark.parametrize(("events", "per_job", "slices"), [(200, 100, 2), (201, 100, 3), (1, 1, 1), (5, 100, 1)])
def test_that_slices_are_rounded_up(events, per_job, slices):
    assert Output("user.x.d", "f", events, per_job).slices == slices


@pytest.mark.parametrize("name", ["cores", "memory_mb", "walltime_s"])
@pytest.mark.parametrize("value", [0, -1])
def test_that_resources_must_be_positive(name, value):
    with pytest.raises(WorkflowError, match=f"{name}={value}"):
        Resources(**{name: value})


def test_that_negative_retries_are_refused():
    with pytest.raises(WorkflowError, match="negative"):
        RetryPolicy(failed=-1)
