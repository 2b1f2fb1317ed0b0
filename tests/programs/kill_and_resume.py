"""Runs an optimization whose driver is killed by SIGKILL at random moments, and resumes it each time, to its end.

``python kill_and_resume.py DIRECTORY KILLS SEED [TRIALS]``. Ax is imported once; every life of the driver is a fork, so
that a life costs as little as it does work. Prints a JSON object with what was found; exits with 1 if anything was lost
or done twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path

import ax.service.ax_client  # noqa: F401 - once, for all lives

from scheduler.core.events import Succeeded, TrialTold
from scheduler.run_directory import DATABASE
from scheduler.run_view import RunView
from scheduler.store import Store

TRIALS = int(sys.argv[4]) if len(sys.argv) > 4 else 40
PROGRAM = """
import os, time
from ax.adapter.registry import Generators
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.service.ax_client import AxClient, ObjectiveProperties
from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction


def simulate(x, y, point):
    time.sleep(0.02)
    with open({evaluations!r}, "a") as file:
        file.write(f"{{x!r}} {{y!r}} {{point}} {{time.time()}}\\n")
    return {{"v": x + y + point}}


def merge(x, y, v):
    return {{"objective": sum(v.values())}}


sobol = GenerationNode(name="Sobol", generator_specs=[GeneratorSpec(Generators.SOBOL, generator_kwargs={{"seed": 7}})])
client = AxClient(generation_strategy=GenerationStrategy(name="Sobol", nodes=[sobol]), verbose_logging=False)
client.create_experiment(
    name="kill_and_resume",
    parameters=[{{"name": n, "type": "range", "bounds": [0.0, 1.0], "value_type": "float"}} for n in "xy"],
    objectives={{"objective": ObjectiveProperties(minimize=True)}},
)
config = {{"resume": True, "run_dir": {run!r}, "progress": False}}
scheduler = AxScheduler(client, JobLibRunner(n_jobs=2), config)
scheduler.set_objective_function(MultiStepsFunction(
    {{"simulate": {{"func": simulate}}, "merge": {{"func": merge, "parent_result_parameter_name": "v"}}}},
    deps={{"merge": {{"parent": "simulate", "dep_map": "all2one"}}}},
    global_parameters={{"point": [1, 2]}},
    global_parameters_steps=["simulate"],
))
scheduler.run_optimization(max_trials={trials})
"""


def live(source: str) -> int:
    """Begin a life of the driver; returns its process number."""
    child = os.fork()
    if child:
        return child
    try:
        exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own program
    except BaseException:  # noqa: BLE001 - a fork must not go on with the parent's program
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def survive(directory: Path, kills: int, seed: int) -> int:
    """Kill and resume until the run is complete; returns how many kills hit a life."""
    source = PROGRAM.format(run=str(directory / "run"), evaluations=str(directory / "evaluations"), trials=TRIALS)
    chance = random.Random(seed)
    hits = 0
    while True:
        child = live(source)
        if hits == kills:
            _, status = os.waitpid(child, 0)
            assert status == 0, f"the last life ended with {status}"
            return hits
        time.sleep(chance.uniform(0.0, 1.0) ** 2 * 1.5)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "a life ended with an error"
            return hits
        hits += 1


def examine(directory: Path) -> list[str]:
    """Everything that is wrong with the run."""
    with closing(Store.open(directory / "run" / DATABASE)) as store:
        events = [event for _, event in store.events()]
    parameters = {e.trial: e.parameters for e in events if type(e).__name__ == "TrialStarted"}
    told = Counter(event.trial for event in events if isinstance(event, TrialTold))
    recorded = {event.job: event.at for event in events if isinstance(event, Succeeded)}
    problems = [f"verify: {problem}" for problem in RunView(directory / "run").problems()]
    if sorted(told) != list(range(TRIALS)) or set(told.values()) != {1}:
        problems.append(f"told: {dict(told)}")
    if len(recorded) != sum(isinstance(event, Succeeded) for event in events):
        problems.append("a job succeeded twice")
    done_at = {
        (repr(parameters[job.trial]["x"]), repr(parameters[job.trial]["y"]), str(dict(job.point)["point"])): at
        for job, at in recorded.items()
        if job.point
    }
    for line in (directory / "evaluations").read_text().splitlines():
        *key, at = line.split()
        if tuple(key) not in done_at:
            problems.append(f"evaluation of an unknown job {key}")
        elif float(at) > done_at[tuple(key)]:
            problems.append(f"{key} was evaluated again after its result was recorded")
    return problems


if __name__ == "__main__":
    where, wanted, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    survived = survive(where, wanted, number)
    found = examine(where)
    sys.stdout.write(json.dumps({"kills": survived, "trials": TRIALS, "problems": found}) + "\n")
    sys.exit(bool(found))
