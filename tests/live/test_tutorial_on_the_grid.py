"""The tutorial's programs through the real iDDS: the same files, with fewer trials and a seed.

Every job of a tutorial program imports Ax, as it does on a real node; hence the small numbers of trials.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.live.broker import why_no_broker
from tests.live.environments import ROOT
from tests.live.grid import Grid
from tests.live.patience import eventually

pytestmark = pytest.mark.timeout(900)  # the first run makes virtual environments

SEED = 7
TIME_LIMIT_S = 600
SERVICES = {"panda": "results over STOMP", "idds": "results over HTTP"}


def run(grid: Grid, directory: Path, name: str, trials: int, service: str) -> dict[str, float]:
    """Run a program of the tutorial and read the best parameters that it prints."""
    shutil.copytree(ROOT / "examples", directory, ignore=shutil.ignore_patterns("scheduler_runs", "__*"))
    program = directory / name
    text = program.read_text()
    for old, new in (
        ("max_trials=10", f"max_trials={trials}"),
        ("AxClient()", f"AxClient(random_seed={SEED})"),
        ('"name": "user.alice.my_experiment",', f'"name": "user.alice.my_experiment", "service": "{service}",'),
    ):
        assert text.count(old) == 1, f"{name} should have one {old!r}"
        text = text.replace(old, new)
    program.write_text(text)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "OMP_NUM_THREADS": "1", **grid.environment}
    done = subprocess.run(
        [grid.python, name],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Best parameters:")]
    best = ast.literal_eval(line.removeprefix("Best parameters:").strip())
    assert isinstance(best, dict)
    return best


def tasks_since(grid: Grid, before: int) -> list[dict[str, Any]]:
    """One task for each work after the first tasks, all ended: a result comes before its task is done.

    Under load iDDS submits a work twice now and then; the result that comes first counts.
    """

    def ended() -> bool:
        return all(
            task["status"] not in {"registered", "defined", "ready", "running"} for task in grid.tasks()[before:]
        )

    eventually(ended, "the tasks to end")
    return list({task["parameters"]["taskName"]: task for task in grid.tasks()[before:]}.values())


def check_tasks(tasks: list[dict[str, Any]], count: int) -> None:
    """So many tasks, all done, each with what the program asked for."""
    assert [task["status"] for task in tasks] == ["done"] * count
    for task in tasks:
        parameters = task["parameters"]
        asked = {
            name: parameters[name] for name in ("coreCount", "maxWalltime", "ramCount", "site", "cloud", "userName")
        }
        assert asked == {
            "coreCount": 1,
            "maxWalltime": 3600,
            "ramCount": 4000,
            "site": "BNL_PanDA_1",
            "cloud": "US",
            "userName": "alice",
        }


@pytest.fixture(scope="module")
def embedded_best(http_grid, tmp_path_factory) -> dict[str, float]:
    """What the embedded site finds with the same seed."""
    return run(http_grid, tmp_path_factory.mktemp("embedded") / "examples", "simple.py", 2, "local")


@pytest.mark.parametrize("service", ["panda", pytest.param("idds", marks=pytest.mark.long)])
def test_that_the_simple_program_finds_on_the_grid_what_it_finds_at_home(request, tmp_path, embedded_best, service):
    grid = grid_for(request, service)
    before = len(grid.tasks())

    best = run(grid, tmp_path / "examples", "simple.py", 2, service)

    assert best == embedded_best
    check_tasks(tasks_since(grid, before), 2)


@pytest.mark.long
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("name", "jobs"), [("multi_steps.py", 1), ("global_parameters.py", 4)])
def test_that_programs_with_steps_run_on_the_grid(request, tmp_path, service, name, jobs):
    grid = grid_for(request, service)
    before = len(grid.tasks())

    best = run(grid, tmp_path / "examples", name, 1, service)

    assert best == run(grid, tmp_path / "at-home", name, 1, "local")
    check_tasks(tasks_since(grid, before), jobs)


@pytest.mark.parametrize(
    ("name", "is_chained"),
    [("datasets.py", True), pytest.param("datasets_waiting.py", False, marks=pytest.mark.long)],
)
def test_that_steps_joined_by_datasets_run_on_the_grid(http_grid, tmp_path, name, is_chained):
    before = len(http_grid.tasks())

    best = run(http_grid, tmp_path / "examples", name, 1, "panda")

    assert best == run(http_grid, tmp_path / "at-home", name, 1, "local")
    tasks = tasks_since(http_grid, before)
    check_tasks(tasks, 8)
    produced = [out for task in tasks for out in outputs(task)]
    consumed = [each["dataset"].rstrip("/") for task in tasks for each in templates(task, "input")]
    assert len(produced) == 4
    assert sorted(consumed) == sorted(produced)
    assert [task["parent_id"] is not None for task in tasks if templates(task, "input")] == [is_chained] * 4
    for dataset in produced:
        names = [path.name for path in http_grid.files(dataset)]
        assert names[:2] == [f"{dataset}_{number:06d}.my_test.txt" for number in (1, 2)]


def templates(task: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in task["parameters"]["jobParameters"] if each.get("param_type") == kind]


def outputs(task: dict[str, Any]) -> list[str]:
    return [each["dataset"].rstrip("/") for each in templates(task, "output")]


def grid_for(request: pytest.FixtureRequest, service: str) -> Grid:
    """STOMP for one service and HTTP for the other; where there is no broker, HTTP for both."""
    is_stomp = "STOMP" in SERVICES[service]
    return request.getfixturevalue("broker_grid" if is_stomp and why_no_broker() is None else "http_grid")
