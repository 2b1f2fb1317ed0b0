from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.facade.conftest import make_client
from tests.store.runs import WORKFLOW, FakeAxOptimizer, make_run

from scheduler import Infeasible, MultiStepsFunction, TrialState, reanalysing
from scheduler.cli import main
from scheduler.core.specs import Dependency, DependencyMap, Function, Output, StepSpec, WorkflowSpec
from scheduler.errors import ConfigurationError, DatasetError
from scheduler.identity import identity_of
from scheduler.panda.datasets import LocalCatalogue
from scheduler.reanalysing import Order
from scheduler.reanalysis import make_plan, plan_of, taken_trials
from scheduler.run_directory import DATABASE, RunDirectory
from scheduler.run_view import RunView
from scheduler.store import Store

RELEASED = Path(__file__).parents[1] / "store" / "released"
SIM, END = WORKFLOW.step("sim"), WORKFLOW.step("end")


@pytest.fixture
def old_run(tmp_path):
    run, _ = make_run(tmp_path / "old")
    run.close()
    return run.path


def plan_for(path, workflow=WORKFLOW, *, steps=("end",), **identity):
    made = {**json.loads(json.dumps(identity_of(workflow, FakeAxOptimizer()))), **identity}
    return make_plan(Order(str(path), steps), workflow, made, frozenset({"objective"}))


@pytest.mark.parametrize("database", sorted(RELEASED.glob("*.db")), ids=lambda path: path.name)
def test_that_runs_of_every_released_schema_can_be_re_analysed(database, tmp_path):
    shutil.copy(database, tmp_path / DATABASE)

    plan = plan_for(tmp_path)
    trials = taken_trials(plan, WORKFLOW, tmp_path / "new")

    assert plan.trials == [0, 2, 3]
    assert [trial.index for trial in trials] == [0, 1, 2]
    assert all(len(trial.results) == 2 and trial.kept["sim"] for trial in trials)
    with closing(Store.open(tmp_path / DATABASE)) as store:
        assert store.query("PRAGMA user_version") == [(int(database.stem.removeprefix("schema-")),)]


def test_that_the_plan_says_in_one_line_what_is_not_taken(old_run):
    assert str(plan_for(old_run)) == (
        f"re-analysing 3 of 4 trials of {old_run} from 'end'; not taken: trial 1 (step 'sim' is failed)"
    )


def test_that_it_is_said_when_the_run_goes_on(old_run):
    run = RunDirectory.open(old_run)
    run.hold(lambda: None, lambda _: None)
    try:
        assert "that run goes on: only what it has now is taken" in str(plan_for(old_run))
    finally:
        run.close()


def side_branch():
    extra = StepSpec("extra", Function(lambda x, v: {"w": 1.0}), "fake", END.dependencies)
    end = replace(END, dependencies=(*END.dependencies, Dependency("extra", parameter="w")))
    return WorkflowSpec((SIM, extra, end), "end", {"p": (1, 2)})


def test_that_a_new_step_is_run_when_it_is_named(old_run):
    with pytest.raises(ConfigurationError, match=r"step 'extra' would be kept, but the run has none; .*--from, too"):
        plan_for(old_run, side_branch())

    assert plan_for(old_run, side_branch(), steps=("extra",)).trials == [0, 2, 3]


@pytest.mark.parametrize(
    ("workflow", "identity", "words"),
    [
        (WORKFLOW, {"parameters": {"z": "z"}}, "parameters: the run has x, the program has z"),
        (replace(WORKFLOW, global_parameters={"p": (1, 2, 3)}), {}, r"global parameters.p: the run has \[1, 2\]"),
        (
            WorkflowSpec((replace(SIM, output=Output("user.a.b", "f")), END), "end", {"p": (1, 2)}),
            {},
            "steps.sim.output dataset",
        ),
        (
            WorkflowSpec(
                (SIM, replace(END, dependencies=(Dependency("sim", mapping=DependencyMap.ALL2ONE, parameter="u"),))),
                "end",
                {"p": (1, 2)},
            ),
            {},
            "there is no trial to take.*returned no 'u'",
        ),
    ],
    ids=["parameters", "points", "dataset", "metric"],
)
def test_that_what_differs_is_named(old_run, workflow, identity, words):
    with pytest.raises(ConfigurationError, match=words):
        plan_for(old_run, workflow, **identity)


def test_that_other_functions_and_limits_of_kept_steps_are_accepted(old_run):
    other = replace(SIM, payload=Function(print), runner="other")

    assert plan_for(old_run, WorkflowSpec((other, END), "end", {"p": (1, 2)})).trials == [0, 2, 3]


def test_that_a_changed_step_cannot_write_into_a_kept_dataset(tmp_path):
    sim, end = replace(SIM, output=Output("user.a.b", "f")), replace(END, output=Output("user.a.b", "g"))
    run, _ = make_run(tmp_path / "old", workflow=WorkflowSpec((sim, END), "end", {"p": (1, 2)}))
    run.close()

    with pytest.raises(ConfigurationError, match=r"step 'end' writes the dataset 'user\.a\.b' of step 'sim'"):
        plan_for(run.path, WorkflowSpec((sim, end), "end", {"p": (1, 2)}))


def test_that_a_linked_dataset_is_there_and_what_is_done_to_it_stays_here(tmp_path):
    theirs, ours = LocalCatalogue(tmp_path / "theirs"), LocalCatalogue(tmp_path / "ours")
    theirs.create("user.a.b")
    file = tmp_path / "file"
    file.write_text("events")
    theirs.add_numbered("user.a.b", [file], name="f", producer="me")
    theirs.close("user.a.b")

    ours.link(theirs, "user.a.b")
    ours.link(theirs, "user.a.b")
    ours.link(theirs, "user.a.unknown")

    assert ours.files("user.a.b") == theirs.files("user.a.b")
    assert not ours.exists("user.a.unknown")
    ours.reopen("user.a.b")
    ours.withdraw("user.a.b", "me")
    assert theirs.is_closed("user.a.b")
    (tmp_path / "staged").mkdir()
    assert len(theirs.stage("user.a.b", tmp_path / "staged")) == 1


def test_that_a_dataset_that_cannot_be_linked_is_named(tmp_path):
    theirs = LocalCatalogue(tmp_path / "theirs")
    theirs.create("user.a.b")
    (tmp_path / "ours").write_text("in the way")

    with pytest.raises(DatasetError, match=r"cannot take dataset 'user\.a\.b'"):
        LocalCatalogue(tmp_path / "ours").link(theirs, "user.a.b")


# With Ax ---------------------------------------------------------------------------------------------------------


def simulate(x, y, p):
    return {"v": x + y + p}


def refuse_to_simulate(x, y, p):
    raise AssertionError("this design was simulated before")


def look(x, y, p, v):
    return {"v": 2 * v}


def steps(sim, merge):
    return MultiStepsFunction(
        {"sim": {"func": sim}, "merge": {"func": merge, "parent_result_parameter_name": "v"}},
        deps={"merge": {"parent": "sim", "dep_map": "all2one"}},
        global_parameters={"p": [1, 2]},
        global_parameters_steps=["sim"],
    )


def sum_of(x, y, v):
    return {"objective": sum(v.values())}


def other(x, y, v):
    return {"other": -sum(v.values())}


@pytest.fixture
def order(tmp_path, monkeypatch):
    def make(run, step="merge"):
        file = tmp_path / "order.json"
        Order(str(run), (step,), str(tmp_path / "new")).write(file)
        monkeypatch.setenv(reanalysing.VARIABLE, str(file))
        return file

    return make


def make_api_client():
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client()
    client.configure_experiment(
        [RangeParameterConfig(name=name, bounds=(0.0, 1.0), parameter_type="float") for name in ("x", "y")], name="exp"
    )
    client.configure_optimization("-other")
    return client


@pytest.mark.parametrize(
    "client", [make_api_client, lambda: make_client(objective="other")], ids=["Client", "AxClient"]
)
def test_that_both_clients_are_told_of_all_trials_under_another_objective(program, order, client):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=4)
    file = order(first.run_directory)

    second = program(steps(refuse_to_simulate, other), client=client(), resume=True)
    best = second.run_optimization(max_trials=4)

    assert second.run_directory == reanalysing.made_run(file) != first.run_directory
    assert [t.parameters for t in second.trials.values()] == [t.parameters for t in first.trials.values()]
    assert all(trial.state is TrialState.COMPLETED for trial in second.trials.values())
    assert best == max((trial.parameters for trial in first.trials.values()), key=lambda p: p["x"] + p["y"])
    assert list(RunView(second.run_directory).problems()) == []


def test_that_fewer_trials_than_there_are_re_analyse_all_of_them(program, order):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=3)
    order(first.run_directory)

    second = program(steps(refuse_to_simulate, other), client=make_client(objective="other"))
    second.run_optimization(max_trials=1)

    assert sorted(second.trials) == [0, 1, 2]


def test_that_status_says_what_a_re_analysis_began_with(program, order):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=2)
    order(first.run_directory)
    second = program(steps(refuse_to_simulate, sum_of))
    second.run_optimization(max_trials=2)

    of_first, of_second = (CliRunner().invoke(main, ["status", str(each.run_directory)]) for each in (first, second))

    assert f"re-analysing 2 of 2 trials of {first.run_directory} from 'merge'" in " ".join(of_second.output.split("\n"))
    assert "re-analysing" not in of_first.output


def simulate_where_possible(x, y, p):
    if x < 0.5:
        raise Infeasible("the layers overlap")
    return {"v": x + y + p}


def merge_where_possible(x, y, v):
    if y > 0.5:
        raise Infeasible("too heavy")
    return {"objective": sum(v.values())}


def other_where_possible(x, y, v):
    if y < 0.5:
        raise Infeasible("too light")
    return {"other": -sum(v.values())}


def test_that_designs_infeasible_in_a_changed_step_are_judged_anew_and_those_in_a_kept_one_are_named(program, order):
    first = program(steps(simulate_where_possible, merge_where_possible))
    first.run_optimization(max_trials=12)
    kept = [trial for trial in first.trials.values() if trial.parameters["x"] >= 0.5]
    assert {trial.state for trial in kept} == {TrialState.COMPLETED, TrialState.INFEASIBLE}
    order(first.run_directory)

    second = program(steps(refuse_to_simulate, other_where_possible), client=make_client(objective="other"))
    second.run_optimization(max_trials=len(kept))

    assert [trial.parameters for trial in second.trials.values()] == [trial.parameters for trial in kept]
    for trial in second.trials.values():
        is_light = trial.parameters["y"] < 0.5
        assert trial.state is (TrialState.INFEASIBLE if is_light else TrialState.COMPLETED)
    with closing(RunView(second.run_directory)) as view:
        assert "(step 'sim' is infeasible)" in str(plan_of(view.about))
        assert list(view.problems()) == []


def test_that_changed_steps_with_a_cache_and_second_attempts_are_run_on_kept_results(program, order):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=3)
    order(first.run_directory)
    changed = MultiStepsFunction(
        {
            "sim": {"func": refuse_to_simulate, "speculative": True},
            "look": {"func": look, "speculative": True, "cache": True, "parent_result_parameter_name": "v"},
            "merge": {"func": other, "parent_result_parameter_name": "v"},
        },
        deps={"look": {"parent": "sim", "dep_map": "one2one"}, "merge": {"parent": "look", "dep_map": "all2one"}},
        global_parameters={"p": [1, 2]},
        global_parameters_steps=["sim", "look"],
    )
    order(first.run_directory, "look")

    second = program(changed, client=make_client(objective="other"))
    second.run_optimization(max_trials=3)

    assert [trial.state for trial in second.trials.values()] == [TrialState.COMPLETED] * 3
    assert [t.parameters for t in second.trials.values()] == [t.parameters for t in first.trials.values()]


def test_that_values_out_of_the_new_bounds_are_told_all_the_same(program, order):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=4)
    order(first.run_directory)

    second = program(steps(refuse_to_simulate, other), client=make_client(objective="other", upper=0.4))
    second.run_optimization(max_trials=4)

    assert len(second.experiment.trials) == 4
    assert any(trial.parameters["x"] > 0.4 for trial in second.trials.values())


def test_that_an_experiment_with_trials_is_refused(program, order):
    first = program(steps(simulate, sum_of))
    first.run_optimization(max_trials=1)
    order(first.run_directory)
    client = make_client(objective="other")
    client.attach_trial({"x": 0.1, "y": 0.1})

    with pytest.raises(ConfigurationError, match="needs a fresh one"):
        program(steps(refuse_to_simulate, other), client=client).run_optimization(max_trials=1)


def test_that_a_single_function_has_nothing_to_keep(program, order):
    first = program()
    first.run_optimization(max_trials=1)
    order(first.run_directory, "objective")

    with pytest.raises(ConfigurationError, match="nothing would be kept"):
        program().run_optimization(max_trials=1)
