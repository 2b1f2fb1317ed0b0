"""A program one of whose jobs hangs, on the cores of this machine."""

import subprocess
import sys

PROGRAM = """
import logging
import os
import time
from pathlib import Path

from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction

MARKER = str(Path(__file__).absolute().with_name("hung"))


def simulate(x, point):
    if point == 3:
        try:
            os.close(os.open(MARKER, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            time.sleep(3600)
    return {"value": x + point}


def merge(x, value):
    return {"loss": sum(value.values())}


if __name__ == "__main__":
    from ax.service.ax_client import AxClient, ObjectiveProperties

    logging.basicConfig(level=logging.INFO)
    client = AxClient(verbose_logging=False)
    client.create_experiment(
        name="hanging",
        parameters=[{"name": "x", "type": "range", "bounds": [0.0, 9.0]}],
        objectives={"loss": ObjectiveProperties(minimize=True)},
    )
    steps = MultiStepsFunction(
        {
            "simulate": {"func": simulate, "speculative": True},
            "merge": {"func": merge, "parent_result_parameter_name": "value"},
        },
        deps={"merge": {"parent": "simulate", "dep_map": "all2one"}},
        global_parameters={"point": [0, 1, 2, 3]},
        global_parameters_steps=["simulate"],
    )
    with AxScheduler(client, JobLibRunner(n_jobs=4)) as scheduler:
        scheduler.set_objective_function(steps)
        (trial,) = scheduler.run_batch([{"x": 1.0}])
        print("Trial:", trial.state)
"""


def test_that_a_job_that_hangs_is_overtaken_and_leaves_no_process(programs, wait_until):
    program = programs.write(PROGRAM)

    with program.start() as process:
        try:
            out, err = process.communicate(timeout=120)
            wait_until(lambda: not program.processes(), 10, "the processes of the jobs to end")
        finally:
            program.kill()

    assert process.returncode == 0, err
    assert "Trial: completed" in out, out + err
    assert (program.directory / "hung").exists()
    assert "a second attempt is started" in err
    why = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "why", str(program.run_directory), "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has its result from a second attempt (the first took longer than " in why.stdout, why.stdout + why.stderr
