"""A program on the grid is killed in mid-run and resumed: its jobs go on meanwhile and are adopted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.live.grid import Grid
from tests.live.patience import eventually

from scheduler.core.events import Submitting, TrialTold
from scheduler.run_view import RunView

pytestmark = pytest.mark.timeout(600)
PROGRAMS = Path(__file__).parent / "programs"


def start(grid: Grid, directory: Path, *command: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "OMP_NUM_THREADS": "1", **grid.environment}
    with (directory / "log.txt").open("a") as log:
        return subprocess.Popen(
            [str(grid.python), *command], cwd=directory, env=environment, stdout=log, stderr=log, text=True
        )


@pytest.mark.long
def test_that_a_killed_program_is_resumed_and_adopts_its_jobs(http_grid, tmp_path):
    for name in ("long_program.py", "slow_step.py"):
        shutil.copy(PROGRAMS / name, tmp_path)
    before = len(http_grid.tasks())
    program = start(http_grid, tmp_path, "long_program.py")
    eventually(lambda: len(http_grid.tasks()) >= before + 2, "two tasks")
    program.kill()
    program.wait()

    resumed = start(http_grid, tmp_path, "-m", "scheduler.cli", "resume", "run")
    assert resumed.wait(timeout=240) == 0, (tmp_path / "log.txt").read_text()[-4000:]

    view = RunView(tmp_path / "run")
    events = [event for _, event in view.store.events()]
    problems = list(view.problems())
    view.close()
    assert problems == []
    assert sum(isinstance(event, TrialTold) and event.failure is None for event in events) == 4
    labels = [event.label for event in events if isinstance(event, Submitting)]
    works = {task["parameters"]["taskName"] for task in http_grid.tasks()[before:]}
    assert len(labels) == len(set(labels)) == len(works) == 4, "no job was submitted again"
