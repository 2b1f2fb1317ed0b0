"""The tutorial's programs, run as typed: on this machine, without an account."""

import re
from collections import defaultdict

import pytest

TRIALS = 10
POINTS = {
    "eta_points_0.1plusparticles_piplus",
    "eta_points_0.1plusparticles_kaonplus",
    "eta_points_0.2plusparticles_piplus",
    "eta_points_0.2plusparticles_kaonplus",
}
DATASET_FILE = re.compile(r"user\.alice\.my_experiment\.simreco\.(.+)\.([^.]+)_(\d{6})\.my_test\.txt")


@pytest.mark.parametrize("name", ["simple.py", "multi_steps.py", "global_parameters.py"])
def test_that_a_tutorial_program_finds_the_minimum(programs, printed_value, name):
    program = programs.example(name)

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    _check_best(printed_value(outcome.stdout, "Best parameters:"))
    assert len(list((program.run_directory / "trials").iterdir())) == TRIALS


@pytest.mark.parametrize("name", ["datasets.py", "datasets_waiting.py"])
def test_that_steps_joined_by_datasets_find_the_minimum_and_leave_the_datasets(programs, printed_value, name):
    program = programs.example(name)

    outcome = program.run()

    assert outcome.returncode == 0, outcome.stderr
    _check_best(printed_value(outcome.stdout, "Best parameters:"))
    produced = _files_by_dataset(program.run_directory / "datasets")
    assert {point for point, _ in produced} == POINTS
    assert len(produced) == len(POINTS) * TRIALS
    assert all(numbers == ["000001", "000002"] for numbers in produced.values()), "200 events by 100 are two files"


def _check_best(best):
    assert best.keys() == {"x", "y"}
    assert best["x"] == pytest.approx(0.5, abs=0.35)
    assert best["y"] == pytest.approx(0.5, abs=0.35)


def _files_by_dataset(catalogue):
    """The numbers of the files in each dataset, given as (point, job id)."""
    numbers = defaultdict(list)
    for path in sorted(catalogue.rglob("*.my_test.txt")):
        point, job_id, number = DATASET_FILE.fullmatch(path.name).groups()
        numbers[point, job_id].append(number)
    return numbers
