from __future__ import annotations

import pytest
from hypothesis import given
from tests.core.strategies import workflows

from scheduler.core.plan import (
    JobId,
    arguments_of,
    check_dataset_names,
    child_links,
    contract_key,
    dataset_key,
    dataset_name,
    jobs_of,
    parent_links,
    points_of,
)
from scheduler.core.specs import Dependency, DependencyMap, Function, Output, StepSpec, WorkflowSpec
from scheduler.errors import WorkflowError

PIONS = (("eta_points", 0.1), ("particles", "pi+"))


def test_that_points_are_the_product_in_sorted_order_of_names():
    points = points_of({"particles": ("pi+", "kaon+"), "eta_points": (0.1, 0.2)})

    assert points == (
        (("eta_points", 0.1), ("particles", "pi+")),
        (("eta_points", 0.1), ("particles", "kaon+")),
        (("eta_points", 0.2), ("particles", "pi+")),
        (("eta_points", 0.2), ("particles", "kaon+")),
    )


def test_that_without_global_parameters_there_is_one_point_without_name():
    assert points_of({}) == ((),)
    assert contract_key(()) == "None"
    assert contract_key(PIONS) == PIONS


@pytest.mark.parametrize(
    ("point", "key"),
    [
        ((), "None"),
        (PIONS, "eta_points_0.1plusparticles_piplus"),
        ((("a-b", -1),), "aminusb_minus1"),
        ((("e", 1e-07),), "e_1eminus07"),
        ((("flag", True), ("n", None)), "flag_Trueplusn_None"),
    ],
)
def test_that_dataset_keys_are_bit_for_bit_as_existing_datasets_have_them(point, key):
    assert dataset_key(point) == key


def test_that_placeholders_are_filled_the_same_for_producer_and_consumer():
    template = "user.a.sim.#global_parameter_key.#trial_id.#job_id"

    names = {dataset_name(template, JobId(7, step, PIONS), "tok_7") for step in ("simreco", "ana")}

    assert names == {"user.a.sim.eta_points_0.1plusparticles_piplus.trial_7.tok_7"}


def test_that_a_dataset_name_that_rucio_would_refuse_is_refused_with_the_step():
    step = StepSpec("sim", Function(print), "r", output=Output("user.a.my data", "f"), fans_out=False)

    with pytest.raises(WorkflowError, match=r"step 'sim'.*my data"):
        check_dataset_names(WorkflowSpec((step,), "sim"), "tok")


def test_that_arguments_are_design_point_and_parents_metrics():
    merge = Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="v")
    workflow = WorkflowSpec(
        (
            StepSpec("sim", Function(print), "r", fans_out=True),
            StepSpec("each", Function(print), "r", (Dependency("sim", parameter="v"),), fans_out=True),
            StepSpec("all", Function(print), "r", (merge,)),
        ),
        "all",
        {"p": (1, 2)},
    )
    results = {JobId(0, "sim", (("p", p),)): {"v": p * 10, "w": 0} for p in (1, 2)}

    def arguments(job):
        return arguments_of(workflow, job, {"x": 0.5}, results.__getitem__)

    assert arguments(JobId(0, "sim", (("p", 2),))) == {"x": 0.5, "p": 2}
    assert arguments(JobId(0, "each", (("p", 2),))) == {"x": 0.5, "p": 2, "v": 20}
    assert arguments(JobId(0, "all")) == {"x": 0.5, "v": {(("p", 1),): 10, (("p", 2),): 20}}


def test_that_an_all2one_parent_without_points_is_found_under_the_key_none():
    dependency = Dependency("a", mapping=DependencyMap.ALL2ONE, parameter="v")
    workflow = WorkflowSpec(
        (StepSpec("a", Function(print), "r"), StepSpec("b", Function(print), "r", (dependency,))), "b"
    )

    assert arguments_of(workflow, JobId(0, "b"), {}, lambda _: {"v": 3}) == {"v": {"None": 3}}


@given(workflows())
def test_that_children_and_parents_agree_on_every_graph(workflow):
    jobs = list(jobs_of(workflow, 0))

    down = {(job, child.job) for job in jobs for child in child_links(workflow, job)}
    up = {(parent.job, job) for job in jobs for parent in parent_links(workflow, job)}

    assert down == up


@given(workflows())
def test_that_parents_come_before_their_children(workflow):
    position = {job: index for index, job in enumerate(jobs_of(workflow, 0))}

    for job, index in position.items():
        assert all(position[parent.job] < index for parent in parent_links(workflow, job))
