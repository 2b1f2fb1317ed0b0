from __future__ import annotations

import pytest

from scheduler.core.specs import DependencyKind, DependencyMap, Script
from scheduler.errors import ConfigurationError
from scheduler.job.job import JobType
from scheduler.job.multi_steps_job import MultiStepsFunction
from scheduler.objective import prepare
from scheduler.testing import FakeRunner

DESIGN = frozenset({"x", "y"})


def sim(x, y, p):
    return {"v": x + y + p}


def analyse(x, y, files):
    return {"objective": x}


def merge(x, y, v):
    return {"objective": v}


def plain(x, y):
    return {"objective": x}


def two_steps(**changes):
    """The smallest fan-out and merge, with changes to its parts."""
    parts = {
        "objective_funcs": {"sim": {"func": sim}, "end": {"func": merge, "parent_result_parameter_name": "v"}},
        "deps": {"end": {"parent": "sim", "dep_map": "all2one"}},
        "global_parameters": {"p": [1, 2]},
        "global_parameters_steps": ["sim"],
    }
    return MultiStepsFunction(**{**parts, **changes})


def test_that_the_description_becomes_the_workflow():
    runner, own = FakeRunner(), FakeRunner()
    description = two_steps()
    description._steps["sim"]["runner"] = own

    prepared = prepare(description, runner, DESIGN)

    sim_step, end = prepared.workflow.steps
    assert (sim_step.fans_out, end.fans_out, prepared.workflow.final) == (True, False, "end")
    (dependency,) = end.dependencies
    assert (dependency.kind, dependency.mapping, dependency.parameter) == (
        DependencyKind.RESULTS,
        DependencyMap.ALL2ONE,
        "v",
    )
    assert prepared.runners == {"FakeRunner": own, "FakeRunner#2": runner}
    assert (sim_step.runner, end.runner) == ("FakeRunner", "FakeRunner#2")


def test_that_one_runner_object_is_one_runner():
    runner = FakeRunner()

    assert list(prepare(two_steps(), runner, DESIGN).runners) == ["FakeRunner"]


def test_that_a_parent_may_be_given_by_name_or_in_a_list():
    steps = {"a": {"func": plain}, "b": {"func": plain}, "c": {"func": plain}}

    workflow = MultiStepsFunction(steps, deps={"b": "a", "c": ["a", {"parent": "b"}]}).build({})

    assert [d.parent for d in workflow.step("b").dependencies] == ["a"]
    assert [d.parent for d in workflow.step("c").dependencies] == ["a", "b"]
    assert workflow.final == "c"


def test_that_several_parents_may_each_give_an_argument():
    def join(x, y, left, right): ...

    description = MultiStepsFunction(
        {"a": {"func": plain}, "b": {"func": plain}, "c": {"func": join}},
        deps={"c": [{"parent": "a", "parameter": "left"}, {"parent": "b", "parameter": "right"}]},
    )

    prepared = prepare(description, FakeRunner(), DESIGN)

    assert prepared.workflow.needed_metrics("b") == {"right"}


def test_that_a_function_of_one_unknown_parameter_gets_a_mapping():
    step = prepare(lambda parameterization: {}, FakeRunner(), DESIGN).workflow.steps[0]

    assert step.payload.takes_mapping


def only(**step):
    """Changes that leave one step, made of these keys."""
    return {"objective_funcs": {"sim": step}, "deps": {}}


BAD = [
    ({"objective_funcs": {}}, "objective_funcs is empty"),
    ({"objective_funcs": {"sim": {}, "end": {"func": merge}}}, "step 'sim': func is None; give a function"),
    ({"objective_funcs": {"sim": {"function": sim}}}, "step 'sim': unknown key 'function'.*valid keys and def.*: func"),
    ({"objective_funcs": {"sim": sim}}, "step 'sim' must be a mapping"),
    (only(func=sim, job_type="function"), "job_type is 'function'; use JobType.FUNCTION"),
    (only(job_type=JobType.SCRIPT), "step 'sim' is a script: give script_path"),
    (only(job_type=JobType.CONTAINER), "step 'sim' is a container: give container_image"),
    ({"deps": {"end": "simm"}}, "deps of step 'end': parent 'simm' is no step; did you mean 'sim'?"),
    ({"deps": {"finish": "sim"}}, "deps names 'finish', which is no step; the steps are end, sim"),
    ({"deps": {"end": 3}}, "3 is neither a step's name nor a mapping"),
    ({"deps": {"end": {"parent": "sim", "dep_map": "all"}}}, "dep_map is 'all'; valid are one2one, all2one"),
    ({"deps": {"end": {"parent": "sim", "dep_type": "files"}}}, "dep_type is 'files'; valid are results, datasets"),
    ({"deps": {"end": {"parnt": "sim"}}}, "unknown key 'parnt'; did you mean 'parent'"),
    ({"deps": {"end": {"parent": "sim", "dep_map": "all2one"}, "sim": "end"}}, "circle: sim -> end -> sim"),
    ({"deps": {"end": {"parent": "sim"}}}, "use dep_map 'all2one'"),
    ({"final": "last"}, "final is 'last', which is no step"),
    ({"final": "sim"}, "the final step 'sim' has one job per combination"),
    ({"global_parameters_steps": ["simm"]}, "global_parameters_steps names 'simm'"),
    ({"global_parameters_steps": "sim"}, "must be a list of step names, not the text 'sim'"),
    ({"global_parameters": {"p": "abc"}}, "global parameter 'p' must be a list of values, not 'abc'"),
    ({"global_parameters": {"p": [[1]]}}, r"global parameter 'p' has the value \[1\] \(list\)"),
    ({"global_parameters": {"p": []}}, "global parameter 'p' has no values"),
    ({"global_parameters": {"x": [1, 2]}}, "'x' is both a global parameter and a design parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_that_a_description_that_contradicts_itself_is_refused_by_name(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        prepare(two_steps(**changes), FakeRunner(), DESIGN)


def producer(**step):
    return MultiStepsFunction({"sim": {"func": plain, **step}, "end": {"func": plain}}, deps={"end": "sim"})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"with_output_dataset": True}, "needs output_dataset and output_file"),
        ({"output_dataset": "user.a.b", "output_file": "f"}, "has output_dataset but not with_output_dataset"),
        ({"input_datasets": {"files": "user.a.b"}}, "has input_datasets but not with_input_datasets"),
        ({"with_input_datasets": True}, "input_datasets names none"),
        ({"with_input_datasets": True, "input_datasets": {"files": 3}}, "maps 'files' to 3"),
        ({"with_output_dataset": True, "output_dataset": "user.a.b", "output_file": "../x"}, "output_file '../x'"),
        ({"with_output_dataset": True, "output_dataset": "user.a.b", "output_file": "/x"}, "output_file '/x'"),
        (
            {"with_output_dataset": True, "output_dataset": "user.a.b", "output_file": "f", "num_events": 0},
            "num_events=0",
        ),
        (
            {"with_output_dataset": True, "output_dataset": "user.a.b", "output_file": "f", "num_events": "9"},
            "num_events is '9'",
        ),
        ({"with_output_dataset": True, "output_dataset": "user.a.my data", "output_file": "f"}, "my data"),
        ({"with_output_dataset": True, "output_dataset": "user.a." + 250 * "b", "output_file": "f"}, "at most 250"),
    ],
)
def test_that_a_dataset_that_cannot_be_is_refused_by_name(step, message):
    with pytest.raises(ConfigurationError, match=message):
        prepare(producer(**step), FakeRunner(), DESIGN)


def test_that_datasets_can_be_switched_off_explicitly():
    switched_off = producer(with_output_dataset=False, output_dataset="user.a.b", output_file="f")

    assert prepare(switched_off, FakeRunner(), DESIGN).workflow.step("sim").output is None


def test_that_a_runner_that_writes_no_datasets_is_refused_for_a_step_that_produces_one():
    runner = FakeRunner()
    runner.stages_outputs = False

    with pytest.raises(ConfigurationError, match="step 'sim' produces datasets, which FakeRunner cannot"):
        prepare(producer(with_output_dataset=True, output_dataset="user.a.b", output_file="f"), runner, DESIGN)


def test_that_a_runner_that_reads_no_datasets_is_refused_for_a_step_that_reads_one():
    runner = FakeRunner()
    runner.stages_inputs = False
    description = MultiStepsFunction(
        {"ana": {"func": analyse, "with_input_datasets": True, "input_datasets": {"files": "user.a.b"}}}
    )

    with pytest.raises(ConfigurationError, match="step 'ana' reads datasets, which FakeRunner cannot"):
        prepare(description, runner, DESIGN)


def test_that_something_else_than_a_runner_is_refused():
    with pytest.raises(ConfigurationError, match="step 'sim': the runner is 'local'"):
        prepare(producer(runner="local"), FakeRunner(), DESIGN)


def test_that_an_argument_from_two_sources_is_refused():
    description = MultiStepsFunction(
        {"a": {"func": plain}, "b": {"func": plain, "parent_result_parameter_name": "x"}}, deps={"b": "a"}
    )

    with pytest.raises(ConfigurationError, match="'x' from the search space and from its parents"):
        prepare(description, FakeRunner(), DESIGN)


def test_that_a_parameter_the_function_does_not_take_is_refused():
    with pytest.raises(ConfigurationError, match=r"plain\(x, y\) does not take 'z'"):
        prepare(plain, FakeRunner(), DESIGN | {"z"})


def test_that_a_script_is_one_step():
    prepared = prepare(Script("run.sh"), FakeRunner(), DESIGN)

    assert [step.payload for step in prepared.workflow.steps] == [Script("run.sh")]


def test_that_a_step_is_cached_when_it_says_so():
    description = two_steps()
    description._steps["sim"]["cache"] = True

    sim_step, end = prepare(description, FakeRunner(), DESIGN).workflow.steps

    assert (sim_step.cache, end.cache) == (True, False)


def test_that_a_step_is_speculative_when_it_says_so():
    description = MultiStepsFunction(
        {"sim": {"func": plain, "speculative": True}, "end": {"func": plain}},
        {"end": {"parent": "sim", "dep_map": "all2one"}},
        global_parameters={"p": [1, 2]},
        global_parameters_steps=["sim"],
    )

    sim_step, end = description.build({}).steps

    assert (sim_step.speculative, end.speculative) == (True, False)


def test_that_a_step_without_siblings_cannot_be_speculative():
    with pytest.raises(ConfigurationError, match="step 'sim' has speculative=True but one job per trial"):
        MultiStepsFunction({"sim": {"func": plain, "speculative": True}})


def test_that_a_switch_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="step 'sim': cache is 'yes'; give True or False"):
        MultiStepsFunction({"sim": {"func": plain, "cache": "yes"}})


def test_that_a_cached_step_whose_function_has_no_source_of_its_own_is_refused():
    description = MultiStepsFunction({"sim": {"func": lambda x, y: {"objective": x}, "cache": True}})

    with pytest.raises(ConfigurationError, match=r"step 'sim' has cache=True, but .* is a lambda"):
        prepare(description, FakeRunner(), DESIGN)


# Datasets on the grid ------------------------------------------------------------------------------------------------


def grid_runner():
    runner = FakeRunner(chains=True)
    runner.appends_outputs = True
    return runner


def make(x, p):
    return None


def read(x, p, names):
    return {"v": x}


def end(x, v):
    return {"objective": 0.0}


def joined(runner, *, dep_map="one2one", returns=False, reader_runner=None, **more):
    function = MultiStepsFunction(
        {
            "make": {
                "func": make,
                "runner": runner,
                "return_func_results": returns,
                "with_output_dataset": True,
                "output_dataset": "user.a.#global_parameter_key.#job_id",
                "output_file": "f",
                **more,
            },
            "read": {
                "func": read,
                "runner": reader_runner or runner,
                "with_input_datasets": True,
                "input_datasets": {"names": "user.a.#global_parameter_key.#job_id"},
            },
            "end": {"func": end, "runner": runner, "parent_result_parameter_name": "v"},
        },
        deps={
            "read": {"parent": "make", "dep_type": "datasets", "dep_map": dep_map},
            "end": {"parent": "read", "dep_map": "all2one"},
        },
        global_parameters={"p": [1, 2]},
        global_parameters_steps=["make", "read"],
    )
    return prepare(function, runner, frozenset({"x"})).workflow


def is_chained(workflow):
    return workflow.step("read").dependencies[0].is_chained


def test_that_a_reader_is_chained_to_one_maker_of_the_same_runner_whose_result_nobody_wants():
    runner = grid_runner()
    assert is_chained(joined(runner))
    assert not is_chained(joined(runner, returns=True))
    assert not is_chained(joined(runner, dep_map="all2one"))
    assert not is_chained(joined(runner, reader_runner=grid_runner()))
    assert not is_chained(joined(FakeRunner()))


def test_that_what_would_add_to_a_dataset_is_not_tried_again(caplog):
    workflow = joined(grid_runner(), retries=2)
    assert (workflow.step("make").retry.failed, workflow.step("make").retry.lost) == (0, 0)
    assert workflow.step("read").retry.lost == 2
    assert "step 'make' is not tried again although retries=2" in caplog.text
    assert joined(FakeRunner(), retries=2).step("make").retry.failed == 2
