"""Rehearsals of small programs: each is played in a fork of a process that has imported Ax once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from scheduler.rehearsal import rehearse, stage

PATIENCE_S = 160.0

PROGRAM = """\
import os
from pathlib import Path
from scheduler import AxScheduler, JobLibRunner, MultiStepsFunction, PanDAiDDSRunner
{imports}

{functions}


def main():
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client()
    client.configure_experiment(
        name="rehearsed", parameters=[RangeParameterConfig(name="x", parameter_type="float", bounds=(0.0, 1.0))]
    )
    client.configure_optimization(objective="-loss")
    client.configure_generation_strategy(method="random_search", initialization_random_seed=3)
    scheduler = AxScheduler(client, PanDAiDDSRunner({runner}))
    scheduler.set_objective_function({objective})
    scheduler.run_optimization(max_trials=20)


{guard}main()
"""
GUARD = 'if __name__ == "__main__":\n    '
OBJECTIVE = 'def objective(x):\n    return {"loss": x}'


def program_text(functions=OBJECTIVE, *, imports="", runner="", objective="objective", guard=GUARD):
    return PROGRAM.format(functions=functions, imports=imports, runner=runner, objective=objective, guard=guard)


def line_of(text: str, part: str) -> int:
    """The number of the one line that has this in it."""
    (number,) = (number for number, line in enumerate(text.splitlines(), 1) if part in line)
    return number


def _be_stage(command, environment, directory, output):
    """In a process of its own: become the stage, in the program's directory, with its environment."""
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    with Path(output).open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        sys.exit(stage.main(command))


@pytest.fixture(scope="session")
def forks():
    """Forks of one process that has imported what takes long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ax.api.client", "ax.service.ax_client", "scheduler.ax_scheduler", __name__])
    return context


@pytest.fixture
def play(forks, tmp_path):
    """Plays a program in `tmp_path/project`; what it says is in `tmp_path/output.txt`."""

    def play_in_fork(command, environment):
        arguments = (list(command), dict(environment), tmp_path / "project", tmp_path / "output.txt")
        process = forks.Process(target=_be_stage, args=arguments)
        process.start()
        process.join(PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            pytest.fail(f"the program did not end: {(tmp_path / 'output.txt').read_text()}")
        return process.exitcode

    return play_in_fork


@pytest.fixture
def project(tmp_path, play):
    return Project(tmp_path, play)


class Project:
    """A directory with a program in it, beside other directories of the user's machine."""

    def __init__(self, top, play):
        self.top = top
        self.directory = top / "project"
        self.directory.mkdir()
        self._play = play

    def write(self, name, text="", *, size=None):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if size is None:
            path.write_text(text)
        else:
            with path.open("wb") as file:
                file.truncate(size)
        return path

    def rehearse(self, name="program.py", *arguments):
        place = self.top / "rehearsal"
        place.mkdir()
        return rehearse(self.directory / name, arguments, directory=place, play=self._play)
