from __future__ import annotations

import json

import pytest
from tests.facade.conftest import make_client, objective

from scheduler import AxScheduler, JobLibRunner, TrialState
from scheduler.errors import ConfigurationError, MissingMainGuardError, NoSuccessfulTrialError, ResultError


def test_that_a_trial_can_be_taken_run_and_completed_one_by_one(program):
    scheduler = program(synchronous=True)

    index = scheduler.get_next_trial()
    trial = scheduler.run_trial(index)

    assert trial.state is TrialState.COMPLETED
    assert scheduler.experiment.trials[index].status.is_running, "told by complete_trial only"
    scheduler.complete_trial(index)
    assert scheduler.experiment.trials[index].status.is_completed
    scheduler.complete_trial(index)


def test_that_the_user_may_tell_another_result_than_the_trials_own(program):
    scheduler = program(synchronous=True)
    index = scheduler.get_next_trial()
    scheduler.run_trial(index)

    scheduler.complete_trial(index, raw_data={"objective": (0.25, 0.1)})

    row = scheduler.experiment.lookup_data().df.iloc[0]
    assert (row["mean"], row["sem"]) == (0.25, 0.1)
    with pytest.raises(ResultError, match=f"trial {index} already"):
        scheduler.complete_trial(index, raw_data={"objective": 1.0})


def test_that_a_trial_evaluated_elsewhere_can_be_completed(program):
    scheduler = program()
    index = scheduler.get_next_trial()

    with pytest.raises(ConfigurationError, match="was not run"):
        scheduler.complete_trial(index)
    with pytest.raises(ResultError, match="no 'objective'"):
        scheduler.complete_trial(index, raw_data={"other": 1.0})
    scheduler.complete_trial(index, raw_data={"objective": 0.5})

    assert scheduler.experiment.trials[index].status.is_completed


def test_that_started_trials_advance_and_are_told_while_waiting(program):
    scheduler = program()
    started = [scheduler.run_trial(scheduler.get_next_trial()) for _ in range(3)]

    assert set(scheduler.monitor_trials()) == {0, 1, 2}
    states = scheduler.wait_for_completed_trials()

    assert set(states.values()) == {TrialState.COMPLETED}
    assert [trial.state for trial in started] == [TrialState.COMPLETED] * 3
    assert all(trial.status.is_completed for trial in scheduler.experiment.trials.values())


def test_that_a_batch_runs_once_and_gives_its_trials(program):
    scheduler = program()

    with scheduler.batch_trial_context() as batch:
        batch.add_trial({"x": 0.1, "y": 0.2})
        batch.add_trial({"x": 0.3, "y": 0.4})
        batch.run()

    assert [trial.get_results()["objective"] for trial in batch.trials] == pytest.approx([0.25, 0.05])
    assert sorted(scheduler.trials) == [0, 1]


def test_that_trials_and_jobs_show_what_happened(program):
    def sometimes(x, y):
        if x > 0.5:
            raise ValueError("no beam")
        return {"objective": x, "note": "fine"}

    scheduler = program(sometimes, failure_rate=1.0)
    scheduler.run_optimization(max_trials=4)

    for trial in scheduler.trials.values():
        (job,) = trial.jobs
        assert trial.run_time_s >= 0
        if trial.state is TrialState.COMPLETED:
            assert job.results == trial.get_results() == {"objective": trial.parameters["x"], "note": "fine"}
            assert (job.is_completed(), job.has_failed(), job.error) == (True, False, None)
        else:
            assert trial.get_results() is None
            assert "ValueError: no beam" in trial.error
            assert job.has_failed()
    states = {trial.state for trial in scheduler.trials.values()}
    assert states == {TrialState.COMPLETED, TrialState.FAILED}


def test_that_errors_of_the_program_are_abandoned_and_not_proposed_again(program):
    scheduler = program(lambda x, y: {"objective": 1.0 / (x > 0.5)}, failure_rate=1.0)
    scheduler.run_optimization(max_trials=4)

    statuses = {trial.status.name for trial in scheduler.experiment.trials.values()}
    assert statuses == {"COMPLETED", "ABANDONED"}


def test_that_the_user_may_have_failed_designs_proposed_again(program):
    scheduler = program(lambda x, y: {"objective": 1.0 / (x > 0.5)}, failure_rate=1.0, retry_failed_designs=True)
    scheduler.run_optimization(max_trials=4)

    assert {trial.status.name for trial in scheduler.experiment.trials.values()} == {"COMPLETED", "FAILED"}


def test_that_a_run_without_any_success_is_an_error_with_the_cause_and_the_directory(program):
    scheduler = program(lambda x, y: {"objective": None})

    with pytest.raises(NoSuccessfulTrialError, match=r"none of the 2 trials succeeded.*'objective' is None") as caught:
        scheduler.run_optimization(max_trials=2)
    assert str(scheduler.run_directory) in caught.value.__notes__[0]


def test_that_finished_trials_files_are_removed_when_asked(program):
    scheduler = program(lambda x, y: {"objective": 1.0 / (x > 0.5)}, cleanup_after_completion=True, failure_rate=1.0)
    scheduler.run_optimization(max_trials=4)

    kept = {int(path.name) for path in (scheduler.run_directory / "trials").iterdir()}
    assert kept == {index for index, trial in scheduler.trials.items() if trial.state is TrialState.FAILED}


@pytest.mark.parametrize("max_trials", [0, -1, 2.5, "3", True, None])
def test_that_a_number_of_trials_that_cannot_be_is_refused(program, max_trials):
    with pytest.raises(ConfigurationError, match="max_trials is"):
        program().run_optimization(max_trials=max_trials)


def test_that_an_objective_comes_before_a_run():
    with AxScheduler(make_client(), JobLibRunner(1), {"progress": False}) as scheduler:
        with pytest.raises(ConfigurationError, match="there is no objective"):
            scheduler.run_optimization(max_trials=1)
        assert scheduler.run_directory is None


def test_that_an_experiment_comes_before_a_run():
    scheduler = AxScheduler(None, JobLibRunner(1))
    scheduler.set_objective_function(objective)

    with pytest.raises(ConfigurationError, match="call load_experiment first"):
        scheduler.run_optimization(max_trials=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("client", "local"), "runner is 'local'"),
        ((42, JobLibRunner(1)), "must be an Ax client"),
    ],
)
def test_that_wrong_arguments_are_refused_with_what_to_pass(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        AxScheduler(*arguments)


def test_that_a_scheduler_made_while_a_job_imports_the_program_explains_the_guard(monkeypatch):
    monkeypatch.setenv("SCHEDULER_IMPORTING", "program.py")

    with pytest.raises(MissingMainGuardError, match=r"program\.py starts an optimization.*__main__"):
        AxScheduler(None, JobLibRunner(1))


def test_that_one_objective_is_not_several(program):
    assert not program().is_multi_objective()


def test_that_another_objective_is_another_run(program):
    scheduler = program()
    scheduler.run_optimization(max_trials=2)
    first = scheduler.run_directory

    scheduler.set_objective_function(lambda x, y: {"objective": x})
    scheduler.run_optimization(max_trials=3)

    assert scheduler.run_directory != first
    assert sorted(scheduler.trials) == [0, 1, 2]
    assert scheduler.trials[2].get_results() == {"objective": scheduler.trials[2].parameters["x"]}


def test_that_run_json_has_the_seed_and_what_makes_the_run_what_it_is(program):
    client = make_client()
    client._random_seed = 7
    scheduler = program(client=client)
    scheduler.run_optimization(max_trials=1)

    about = json.loads((scheduler.run_directory / "run.json").read_text())
    assert about["seed"] == 7
    assert list(about["identity"]["steps"]) == ["objective"]


def test_that_cached_results_are_taken_by_a_later_run_of_the_program(program, tmp_path):
    from scheduler import MultiStepsFunction

    steps = MultiStepsFunction({"only": {"func": objective, "cache": True}})
    designs = [{"x": 0.25, "y": 0.5}, {"x": 0.5, "y": 0.75}]

    results = [[trial.get_results() for trial in program(steps).run_batch(designs)] for _ in range(2)]

    assert results[0] == results[1]
    assert len(list((tmp_path / "runs" / ".cache").rglob("*.json"))) == 2
    second = sorted((tmp_path / "runs").glob("exp*"))[1]
    assert not (second / "trials").exists(), "no job of the second run was executed"


def test_that_a_directory_for_a_cache_that_no_step_uses_is_a_warning(program, tmp_path, caplog):
    program(cache_dir=str(tmp_path / "mine")).run_batch([{"x": 0.25, "y": 0.5}])

    assert "config['cache_dir'] is given, but no step has cache=True" in caplog.text
    assert not (tmp_path / "mine").exists()
