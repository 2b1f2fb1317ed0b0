from __future__ import annotations

import os
import threading

import pytest
from tests.facade.conftest import make_client, objective

from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction, TrialState
from scheduler.errors import ConfigurationError, OptimizationInterrupted, RunLockedError
from scheduler.run_view import RunView


def designs(scheduler):
    return {index: trial.parameters for index, trial in scheduler.trials.items()}


def test_that_max_trials_counts_what_is_there(program):
    first = program()
    first.run_optimization(max_trials=3)

    second = program(resume=True)
    second.run_optimization(max_trials=5)

    assert second.run_directory == first.run_directory
    assert sorted(second.trials) == [0, 1, 2, 3, 4]
    assert {index: designs(second)[index] for index in range(3)} == designs(first)
    assert list(RunView(second.run_directory).problems()) == []


def test_that_the_designs_are_those_of_an_undisturbed_run(program, tmp_path):
    undisturbed = program(run_dir=str(tmp_path / "undisturbed"))
    undisturbed.run_optimization(max_trials=6)

    for trials in (2, 3, 6):
        resumed = program(resume=True)
        resumed.run_optimization(max_trials=trials)

    assert designs(resumed) == designs(undisturbed)


def test_that_the_programs_own_client_has_the_state_of_the_run(program):
    program().run_optimization(max_trials=3)
    client = make_client()

    resumed = program(client=client, resume=True)
    best = resumed.run_optimization(max_trials=3)

    assert len(client.experiment.trials) == 3
    assert client.get_best_parameters()[0] == best
    assert resumed.ax_client is client


def test_that_without_a_run_resume_starts_one(program):
    scheduler = program(resume=True)
    scheduler.run_optimization(max_trials=2)

    assert sorted(scheduler.trials) == [0, 1]


def test_that_a_new_run_is_made_when_resume_is_not_asked_for(program):
    names = []
    for _ in range(2):
        scheduler = program()
        scheduler.run_optimization(max_trials=1)
        names.append(scheduler.run_directory.name)

    assert names == ["exp", "exp-2"]


def test_that_the_environment_names_the_run_of_one_experiment(program, monkeypatch):
    first = program()
    first.run_optimization(max_trials=2)
    first.close()
    monkeypatch.setenv("SCHEDULER_RESUME", str(first.run_directory))

    other = program(client=make_client("other"))
    other.run_optimization(max_trials=1)
    same = program()
    same.run_optimization(max_trials=3)

    assert other.run_directory != first.run_directory
    assert same.run_directory == first.run_directory
    assert sorted(same.trials) == [0, 1, 2]


def two_steps(points=(1, 2)):
    def sim(x, y, p):
        return {"v": x + y + p}

    def merge(x, y, v):
        return {"objective": sum(v.values())}

    return MultiStepsFunction(
        {"sim": {"func": sim}, "merge": {"func": merge, "parent_result_parameter_name": "v"}},
        deps={"merge": {"parent": "sim", "dep_map": "all2one"}},
        global_parameters={"p": list(points)},
        global_parameters_steps=["sim"],
    )


def renamed(x, y):
    return objective(x, y)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"client": lambda: make_client(upper=2.0)}, r"parameters\.x: the run has .*1\.0.*, the program has .*2\.0"),
        ({"function": two_steps()}, r"final: the run has objective, the program has merge"),
        ({"function": renamed}, r"steps\.objective\.runs: the run has objective, the program has renamed"),
    ],
)
def test_that_another_program_is_refused_with_the_difference(program, change, difference):
    program().run_optimization(max_trials=1)
    change = {**change, **({"client": change["client"]()} if "client" in change else {})}

    with pytest.raises(ConfigurationError, match=difference):
        program(**change, resume=True).run_optimization(max_trials=2)


def test_that_other_objectives_are_refused(program):
    program().run_optimization(max_trials=1)
    client = make_client(objective="loss")

    with pytest.raises(ConfigurationError, match=r"objectives\.loss: the run has \(nothing\)"):
        program(lambda x, y: {"loss": x}, client=client, resume=True).run_optimization(max_trials=2)


def test_that_other_points_are_refused(program):
    program(two_steps()).run_optimization(max_trials=1)

    with pytest.raises(
        ConfigurationError, match=r"global parameters\.p: the run has \[1, 2\], the program has \[1, 3\]"
    ):
        program(two_steps((1, 3)), resume=True).run_optimization(max_trials=2)


def test_that_harmless_changes_are_accepted_when_the_user_says_so(program, monkeypatch):
    program().run_optimization(max_trials=1)
    monkeypatch.setenv("SCHEDULER_ACCEPT_CHANGES", "1")

    scheduler = program(renamed, resume=True)
    scheduler.run_optimization(max_trials=2)
    assert sorted(scheduler.trials) == [0, 1]

    monkeypatch.delenv("SCHEDULER_ACCEPT_CHANGES")
    program(renamed, resume=True).run_optimization(max_trials=3)


def test_that_grave_changes_are_not_accepted_even_then(program, monkeypatch):
    program().run_optimization(max_trials=1)
    monkeypatch.setenv("SCHEDULER_ACCEPT_CHANGES", "1")

    with pytest.raises(ConfigurationError, match="start a new run"):
        program(two_steps(), resume=True).run_optimization(max_trials=2)


def test_that_a_run_that_is_worked_on_is_refused(program, tmp_path):
    first = program()
    first.run_optimization(max_trials=1)
    config = {"progress": False, "job_output_dir": str(tmp_path / "runs"), "resume": True}
    second = AxScheduler(make_client(), JobLibRunner(n_jobs=1, backend="threading"), config)
    second.set_objective_function(objective)

    with pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
        second.run_optimization(max_trials=2)
    second.close()


def test_that_a_batch_is_not_attached_twice(program):
    batch = [{"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.4}, {"x": 0.1, "y": 0.2}]
    first = program()
    first.run_batch(batch[:2])

    second = program(resume=True)
    trials = second.run_batch(batch)

    assert [trial.parameters for trial in trials] == batch
    assert [trial.index for trial in trials] == [0, 1, 2]
    assert all(trial.state is TrialState.COMPLETED for trial in trials)


def test_that_a_saved_experiment_can_be_loaded_and_goes_on(program, tmp_path):
    first = program()
    first.run_optimization(max_trials=2)
    pending = first.get_next_trial()
    first.save_experiment(tmp_path / "saved" / "exp.json")
    first.close()

    runner = JobLibRunner(n_jobs=2, backend="threading")
    with AxScheduler(None, runner, {"progress": False, "run_dir": str(tmp_path / "second")}) as second:
        second.set_objective_function(objective)
        second.load_experiment(tmp_path / "saved" / "exp.json")
        second.run_optimization(max_trials=4)

        assert sorted(second.trials) == [pending, 3]
        assert len(second.experiment.trials) == 4
        assert second.experiment.trials[pending].status.is_completed


def test_that_a_trial_cancelled_by_a_reader_is_told_as_failed(program):
    release = threading.Event()

    def slow(x, y):
        release.wait(60)
        return objective(x, y)

    scheduler = program(slow)
    index = scheduler.get_next_trial()
    scheduler.run_trial(index)
    view = RunView(scheduler.run_directory)
    view.store.ask({"kind": "cancel", "trial": index})

    states = scheduler.wait_for_completed_trials()

    release.set()
    assert states == {index: TrialState.CANCELLED}
    assert scheduler.experiment.trials[index].status.is_failed


def test_that_a_run_stopped_by_a_reader_can_be_resumed(program, tmp_path):
    begun, release = threading.Event(), threading.Event()

    def slow(x, y):
        begun.set()
        release.wait(60)
        return objective(x, y)

    def ask_to_stop():
        begun.wait(60)
        RunView(tmp_path / "runs" / "exp").store.ask({"kind": "stop"})

    threading.Thread(target=ask_to_stop, daemon=True).start()
    with pytest.raises(OptimizationInterrupted, match="stopped by 'scheduler cancel'") as caught:
        program(slow).run_optimization(max_trials=3)
    release.set()
    resumed = program(slow, resume=True)
    resumed.run_optimization(max_trials=3)

    assert "scheduler resume" in caught.value.__notes__[-1]
    assert {trial.state for trial in resumed.trials.values()} == {TrialState.COMPLETED}
    assert sorted(resumed.trials) == [0, 1, 2]
