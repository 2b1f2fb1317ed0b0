"""Programs with cached steps, run again: nothing is executed that was executed before."""

import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from scheduler.cli import main

PROGRAM = """
import physics
from ax.service.ax_client import AxClient, ObjectiveProperties

from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction, PanDAiDDSRunner

if __name__ == "__main__":
    ax_client = AxClient(verbose_logging=False)
    ax_client.create_experiment(
        name="cached",
        parameters=[{{"name": name, "type": "range", "bounds": [0.0, 9.0]}} for name in ("x", "y")],
        objectives={{"objective": ObjectiveProperties(minimize=True)}},
    )
    steps = {{
        "sim": {{"func": physics.simulate, "cache": True}},
        "end": {{"func": physics.merge, "parent_result_parameter_name": "v", "cache": True}},
    }}
    objective = MultiStepsFunction(
        steps,
        deps={{"end": {{"parent": "sim", "dep_map": "all2one"}}}},
        global_parameters={{"p": [1, 2]}},
        global_parameters_steps=["sim"],
    )
    with AxScheduler(ax_client, {runner}) as scheduler:
        scheduler.set_objective_function(objective)
        trials = scheduler.run_batch([{{"x": 1.0, "y": 0.0}}, {{"x": 0.1, "y": 0.2}}, {{"x": 1.0, "y": 0.0}}])
        print("Results:", [trial.get_results()["objective"] for trial in trials])
"""

PHYSICS = """
import os

import tools


def executed(name):
    # one write of a whole line: jobs run at the same time
    file = os.open({count!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (name + chr(10)).encode())
    os.close(file)


def simulate(x, y, p):
    executed("sim")
    return {{"v": tools.SCALE * x + y + p}}


def merge(x, y, v):
    executed("end")
    return {{"objective": sum(v.values())}}
"""


@pytest.fixture
def cached(programs, tmp_path):
    """Makes the program with a runner, and a function that runs it: how often which step was executed, the results."""
    count = tmp_path / "elsewhere" / "count"
    count.parent.mkdir()
    (tmp_path / "physics.py").write_text(PHYSICS.format(count=str(count)))
    (tmp_path / "tools.py").write_text("SCALE = 1.0\n")

    def make(runner):
        program = programs.write(PROGRAM.format(runner=runner))

        def run():
            count.write_text("")
            outcome = program.run()
            assert outcome.returncode == 0, outcome.stderr
            executed = count.read_text().split()
            (results,) = [line for line in outcome.stdout.splitlines() if line.startswith("Results:")]
            return executed.count("sim"), executed.count("end"), results

        return run

    return make


@pytest.mark.parametrize("runner", ["JobLibRunner(n_jobs=2)", "PanDAiDDSRunner(service='local', config={'slots': 2})"])
def test_that_a_program_that_is_run_again_executes_nothing_until_a_helper_module_is_edited(cached, tmp_path, runner):
    run = cached(runner)

    *first, results = run()
    assert 4 <= first[0] <= 6, "equal jobs at the same time may both run"
    assert run() == (0, 0, results)

    (tmp_path / "tools.py").write_text("SCALE = 10.0\n")
    *edited, other_results = run()
    assert edited[0] >= 4
    assert edited[1] >= 2
    assert other_results != results

    (tmp_path / "tools.py").write_text("SCALE = 1.0\n")
    assert run() == (0, 0, results)

    second = tmp_path / "scheduler_runs" / "cached-2"
    with closing(sqlite3.connect(second / "experiment.db")) as connection:
        sources = [row[0] for row in connection.execute("SELECT source FROM jobs")]
    assert len(sources) == 9
    assert all(source.startswith("the cache (") for source in sources)
    why = CliRunner().invoke(main, ["why", str(second), "1"], catch_exceptions=False).output
    assert "step 'end' has its result from the cache (" in why
    assert ", trial 1)" in why
