"""`scheduler reanalyse` as a user types it: nothing that is kept is executed again."""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing

import pytest
from tests.programs.conftest import TIME_LIMIT_S

from scheduler.core.events import Submitting, Succeeded, TrialTold
from scheduler.run_directory import DATABASE, read_about
from scheduler.run_view import RunView
from scheduler.store import Store

HEAD = """
import os
import sys
import time

from ax.adapter.registry import Generators
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.service.ax_client import AxClient, ObjectiveProperties

from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction, PanDAiDDSRunner

COUNT = os.environ["COUNT"]


def executed(name):
    file = os.open(COUNT, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (name + chr(10)).encode())  # one write of a whole line: jobs run at the same time
    os.close(file)


def client(*objectives):
    sobol = GenerationNode(name="S", generator_specs=[GeneratorSpec(Generators.SOBOL, generator_kwargs={"seed": 7})])
    made = AxClient(generation_strategy=GenerationStrategy(name="S", nodes=[sobol]), verbose_logging=False)
    made.create_experiment(
        name="twice",
        parameters=[{"name": n, "type": "range", "bounds": [0.0, 1.0], "value_type": "float"} for n in ("x", "y")],
        objectives={name: ObjectiveProperties(minimize=True, threshold=9.0 if len(objectives) > 1 else None)
                    for name in objectives},
    )
    return made
"""

STEPS = """

def simulate(x, y, p):
    executed("simulate")
    if {fails}:
        raise ValueError("no beam")
    return {{"v": x + y + p}}


def merge(x, y, v):
    executed("merge")
    time.sleep({pause})
    {merge}


if __name__ == "__main__":
    with AxScheduler(client({objectives}), JobLibRunner(n_jobs=2), {{"failure_rate": 1.0}}) as scheduler:
        scheduler.set_objective_function(MultiStepsFunction(
            {{"simulate": {{"func": simulate}}, "merge": {{"func": merge, "parent_result_parameter_name": "v"}}}},
            deps={{"merge": {{"parent": "simulate", "dep_map": "all2one"}}}},
            global_parameters={{"p": {points}}},
            global_parameters_steps=["simulate"],
        ))
        best = {call}
        print("Best:", best)
"""

DATASETS = """

def simulate(x, y):
    executed("simulate")
    with open("events.txt", "w") as file:
        file.write(repr(x + y))


def analyse(x, y, files):
    executed("analyse")
    {analyse}


if __name__ == "__main__":
    runner = PanDAiDDSRunner(service="local", config={{"slots": 2}})
    with AxScheduler(client({objectives}), runner) as scheduler:
        name = "user.alice.events.#trial_id.#job_id"
        scheduler.set_objective_function(MultiStepsFunction(
            {{
                "simulate": {{"func": simulate, "return_func_results": False, "with_output_dataset": True,
                             "output_file": "events.txt", "output_dataset": name}},
                "analyse": {{"func": analyse, "with_input_datasets": True, "input_datasets": {{"files": name}}}},
            }},
            deps={{"analyse": {{"parent": "simulate", "dep_type": "datasets"}}}},
        ))
        print("Best:", scheduler.run_optimization(max_trials={trials}))
"""


def steps(**changes):
    options = {
        "fails": "False",
        "pause": 0,
        "merge": 'return {"objective": sum(v.values())}',
        "objectives": '"objective"',
        "points": "[1, 2]",
        "call": "scheduler.run_optimization(max_trials=4)",
    }
    return HEAD + STEPS.format(**{**options, **changes})


OTHER = {"merge": 'return {"width": max(v.values()), "height": x}', "objectives": '"width", "height"'}


class Bench:
    def __init__(self, directory):
        self.directory = directory
        self.count = directory / "executed"
        self.runs = directory / "scheduler_runs"

    def environment(self):
        return {**os.environ, "COUNT": str(self.count), "OMP_NUM_THREADS": "1"}

    def executed(self):
        """What was executed since the last call."""
        found = Counter(self.count.read_text().split()) if self.count.exists() else Counter()
        self.count.unlink(missing_ok=True)
        return dict(found)

    def run(self, text):
        self._write(text)
        return self._wait(self._start([sys.executable, "program.py"]))

    def command(self, *words, text=None):
        return self._wait(self.start(*words, text=text))

    def start(self, *words, text=None):
        if text is not None:
            self._write(text)
        return self._start([sys.executable, "-m", "scheduler.cli", *words])

    def _write(self, text):
        (self.directory / "program.py").write_text(text)

    def _start(self, command):
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _wait(self, process):
        with process:
            out, err = process.communicate(timeout=TIME_LIMIT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def one_trial(tmp_path_factory):
    """A run of one trial, which the tests that have it leave as it is."""
    made = Bench(tmp_path_factory.mktemp("one_trial"))
    assert made.run(steps(call="scheduler.run_optimization(max_trials=1)")).returncode == 0
    return made


def events(run):
    with closing(Store.open(run / DATABASE)) as store:
        return [event for _, event in store.events()]


def told(run):
    return {event.trial: event.metrics for event in events(run) if isinstance(event, TrialTold)}


def designs(run):
    with closing(RunView(run)) as view:
        return [trial.parameters for trial in view.trials()]


def test_that_another_objective_is_told_of_all_trials_without_a_simulation_and_the_optimization_goes_on(bench):
    assert bench.run(steps()).returncode == 0
    assert bench.executed() == {"simulate": 8, "merge": 4}
    before = (bench.runs / "twice" / DATABASE).read_bytes()

    done = bench.command("reanalyse", "scheduler_runs/twice", "program.py", "--from", "merge", text=steps(**OTHER))

    assert done.returncode == 0, done.stderr
    assert bench.executed() == {"merge": 4}
    assert (bench.runs / "twice" / DATABASE).read_bytes() == before
    new = bench.runs / "twice-2"
    assert done.stderr.splitlines()[-1] == f"new run directory: {new}"
    assert designs(new) == designs(bench.runs / "twice")
    assert [set(metrics) for metrics in told(new).values()] == [{"width", "height"}] * 4
    assert "has its result from run twice, trial 2" in bench.command("why", str(new), "2").stdout
    assert bench.command("verify", str(new)).returncode == 0

    more = steps(**OTHER, call="scheduler.run_optimization(max_trials=6)")
    assert bench.command("reanalyse", str(new), "program.py", "--from", "merge", text=more).returncode == 0
    assert bench.executed() == {"simulate": 4, "merge": 6}
    third = bench.runs / "twice-3"
    assert sorted(told(third)) == [0, 1, 2, 3, 4, 5]
    assert designs(third)[:4] == designs(new)


def test_that_trials_that_failed_below_are_taken_and_those_that_failed_above_are_named(bench):
    bench.run(steps(fails="x < 0.3", merge='raise ValueError("bug") if x > 0.7 else None'))
    bench.executed()
    run = bench.runs / "twice"
    with closing(RunView(run)) as view:
        failed = [trial.index for trial in view.trials() if trial.parameters["x"] < 0.3]
    assert 0 < len(failed) < 4

    options = ["--from", "merge", "--run-dir", "elsewhere", "--", "--deep", "1"]
    done = bench.command("reanalyse", str(run), "program.py", *options, text=steps())

    assert done.returncode == 0, done.stderr
    assert read_about(bench.directory / "elsewhere")["arguments"] == ["--deep", "1"]
    assert f"re-analysing {4 - len(failed)} of 4 trials" in done.stderr
    assert f"{', '.join(map(str, failed))} (step 'simulate' is failed)" in done.stderr
    assert bench.executed()["merge"] == 4


def test_that_datasets_of_kept_steps_are_read_where_they_are(bench):
    first = {"analyse": 'return {"objective": float(open(files[0]).read())}', "objectives": '"objective"', "trials": 3}
    ran = bench.run(HEAD + DATASETS.format(**first))
    assert ran.returncode == 0, ran.stderr
    assert bench.executed() == {"simulate": 3, "analyse": 3}

    then = {"analyse": 'return {"other": -float(open(files[0]).read())}', "objectives": '"other"', "trials": 4}
    text = HEAD + DATASETS.format(**then)
    done = bench.command("reanalyse", "scheduler_runs/twice", "program.py", "--from", "analyse", text=text)

    assert done.returncode == 0, done.stderr
    assert bench.executed() == {"simulate": 1, "analyse": 4}
    old, new = told(bench.runs / "twice"), told(bench.runs / "twice-2")
    assert [new[index]["other"][0] for index in range(3)] == [-old[index]["objective"][0] for index in range(3)]


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)


def terminate(process):
    process.terminate()  # the command alone, which passes it on


@pytest.mark.parametrize("end", [kill, terminate])
def test_that_a_re_analysis_that_was_broken_off_is_resumed_and_nothing_is_analysed_twice(bench, wait_until, end):
    bench.run(steps(call="scheduler.run_optimization(max_trials=8)"))
    bench.executed()
    slow = steps(**OTHER, pause=0.3, call="scheduler.run_optimization(max_trials=9)")

    process = bench.start("reanalyse", "scheduler_runs/twice", "program.py", "--from", "merge", text=slow)
    new = bench.runs / "twice-2"
    wait_until(lambda: (new / DATABASE).exists() and len(told_safely(new)) >= 3, 60, "three trials to be told")
    end(process)
    _, err = process.communicate(timeout=TIME_LIMIT_S)
    assert end is kill or f"scheduler resume {new}" in err
    known = len([event for event in events(new) if isinstance(event, Succeeded) and event.job.step == "merge"])
    bench.executed()

    resumed = bench.command("resume", str(new))

    assert resumed.returncode == 0, resumed.stderr
    assert 3 <= known < 8
    assert sorted(told(new)) == list(range(9))
    assert bench.executed() == {"simulate": 2, "merge": 9 - known}
    assert {event.job.trial for event in events(new) if isinstance(event, Submitting) and event.job.point} == {8}
    assert designs(new)[:8] == designs(bench.runs / "twice")
    assert bench.command("verify", str(new)).returncode == 0


def told_safely(run):
    try:
        return told(run)
    except Exception:  # noqa: BLE001 - the database is being made
        return {}


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({}, "merg", "its steps are simulate, merge"),
        ({}, "simulate", "nothing would be kept"),
        ({"points": "[1, 3]"}, "merge", "global parameters.p: the run has [1, 2], the program has [1, 3]"),
        ({"call": "scheduler.run_batch([{'x': 0.1, 'y': 0.1}])"}, "merge", "the program must call that first"),
        ({"call": "None"}, "merge", "ended without calling run_optimization"),
    ],
    ids=["unknown step", "nothing kept", "other points", "batch", "no optimization"],
)
def test_that_what_cannot_be_re_analysed_is_refused_in_words(one_trial, changes, step, words):
    done = one_trial.command("reanalyse", "scheduler_runs/twice", "program.py", "--from", step, text=steps(**changes))

    assert done.returncode == 1
    assert words in done.stderr
    assert [path.name for path in one_trial.runs.iterdir()] == ["twice"]
