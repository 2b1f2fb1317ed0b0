"""Programs that fail, in part or altogether, and programs that are stopped: what the user sees."""

import signal
import subprocess

import pytest

PROGRAM = """
import time
from pathlib import Path
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from scheduler import AxScheduler, JobLibRunner, PanDAiDDSRunner

def objective(x):
    {objective}

def main():
    client = Client()
    client.configure_experiment(
        name="trouble", parameters=[RangeParameterConfig(name="x", parameter_type="float", bounds=(0.0, 1.0))]
    )
    client.configure_optimization(objective="-loss")
    client.configure_generation_strategy(method="random_search", initialization_random_seed=3)
    scheduler = AxScheduler(client, {runner})
    scheduler.set_objective_function(objective)
    best = scheduler.run_optimization(max_trials={trials})
    for index, trial in scheduler.trials.items():
        print("Trial:", (index, trial.parameters["x"], trial.state.name))
    print("Best parameters:", best)

{guard}main()
"""
TRIALS = 8
GUARD = 'if __name__ == "__main__":\n    '
LOCAL, PANDA = "JobLibRunner(n_jobs=2)", "PanDAiDDSRunner()"


def program_text(objective, runner=LOCAL, guard=GUARD):
    return PROGRAM.format(objective=objective, runner=runner, guard=guard, trials=TRIALS)


def test_that_trials_fail_one_by_one_and_the_program_goes_on(programs):
    program = programs.write(program_text("assert x > 0.3, f'no solution at {x}'\n    return {'loss': x}"))

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    lines = [line.removeprefix("Trial: ") for line in outcome.stdout.splitlines() if line.startswith("Trial: ")]
    trials = [eval(line) for line in lines]  # noqa: S307 - a tuple that the program above printed
    assert len(trials) == TRIALS
    assert {state for _, x, state in trials if x > 0.3} == {"COMPLETED"}
    assert {state for _, x, state in trials if x <= 0.3} == {"FAILED"}
    assert "no solution at" in outcome.stdout + outcome.stderr


def test_that_a_program_whose_trials_all_fail_ends_with_the_commonest_cause(programs):
    program = programs.write(program_text("raise ValueError('the magnet is off')"))

    outcome = program.run()

    assert outcome.returncode != 0
    assert "the magnet is off" in _last_words(outcome.stderr)
    assert "Best parameters" not in outcome.stdout


def test_that_a_missing_main_guard_is_explained(programs):
    program = programs.write(program_text("return {'loss': x}", runner=PANDA, guard=""))

    outcome = program.run()

    assert outcome.returncode != 0
    assert 'if __name__ == "__main__":' in outcome.stdout + outcome.stderr


def test_that_one_ctrl_c_lets_running_trials_finish_and_gives_the_best_so_far(programs, wait_until, tmp_path):
    started = tmp_path / "started"
    slow = f"Path({str(started)!r}).touch(); time.sleep(2); return {{'loss': x}}"
    program = programs.write(program_text(slow))
    with program.start() as process:
        wait_until(started.exists, 60, "a job to start")

        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert out.count("'COMPLETED'") == out.count("Trial: ")
    assert 1 <= out.count("Trial: ") < TRIALS
    assert "Best parameters:" in out


@pytest.mark.parametrize("runner", [LOCAL, PANDA])
def test_that_a_second_ctrl_c_ends_the_program_soon_and_leaves_no_process(programs, wait_until, tmp_path, runner):
    started = tmp_path / "started"
    program = programs.write(program_text(f"Path({str(started)!r}).touch(); time.sleep(600)", runner=runner))
    with program.start() as process:
        wait_until(started.exists, 100, "a job to start")

        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert process.returncode != 0
    assert "stopped by Ctrl-C" in _last_words(err)
    assert "Best parameters" not in out
    wait_until(lambda: not program.processes(), 5, "its processes to end")


def _last_words(err):
    return "\n".join(err.splitlines()[-5:])
