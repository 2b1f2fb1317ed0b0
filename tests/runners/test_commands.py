"""Command lines of scripts and containers, as tables."""

import os
import sys
from pathlib import Path

import pytest

from scheduler.core.specs import Container, Resources, Script
from scheduler.errors import ConfigurationError
from scheduler.runners.commands import (
    ContainerPlace,
    as_options,
    container_argv,
    container_kill_argv,
    container_name,
    find_engine,
    script_argv,
)

PLACE = ContainerPlace(name="c1", job=Path("/run/trials/3/sim/None"), trial=Path("/run/trials/3"), user="1000:100")
DOCKER_HEAD = "--volume /run/trials/3/sim/None:/job --volume /run/trials/3:/workdir --workdir /job"
SINGULARITY_HEAD = "--bind /run/trials/3/sim/None:/job --bind /run/trials/3:/workdir --pwd /job"
LIMITS = "--memory 400000000b --cpus 2"
ENV = "--env JOB_PARAMS_FILE=/job/params.json"


@pytest.mark.parametrize(
    ("engine", "container", "resources", "expected"),
    [
        (
            "docker",
            Container("eic:1", "python sim.py --fast"),
            Resources(),
            f"docker run --rm --name c1 {DOCKER_HEAD} {ENV} --user 1000:100 eic:1 python sim.py --fast",
        ),
        (
            "docker",
            Container("eic:1", None, {"gpus": "all", "t": None, "privileged": True, "init": False}),
            Resources(cores=2, memory_mb=400, walltime_s=60),
            f"docker run --rm --name c1 {DOCKER_HEAD} {ENV} --user 1000:100 {LIMITS} --gpus all -t --privileged eic:1",
        ),
        ("podman", Container("eic:1"), Resources(), f"podman run --rm --name c1 {DOCKER_HEAD} {ENV} eic:1"),
        (
            "singularity",
            Container("eic.sif", "sim.sh"),
            Resources(cores=2, memory_mb=400),
            f"singularity exec {SINGULARITY_HEAD} {ENV} eic.sif sim.sh",
        ),
        (
            "apptainer",
            Container("docker://eic:1", None, {"nv": None}),
            Resources(),
            f"apptainer run {SINGULARITY_HEAD} {ENV} --nv docker://eic:1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_that_a_container_becomes_this_command_line(engine, container, resources, expected):
    assert container_argv(container, engine=engine, place=PLACE, resources=resources) == expected.split()


def test_that_words_in_quotes_stay_together_in_a_container_command():
    argv = container_argv(Container("eic:1", "bash -c 'a && b'"), engine="docker", place=PLACE, resources=Resources())

    assert argv[-3:] == ["bash", "-c", "a && b"]


def test_that_only_engines_with_containers_of_their_own_are_asked_to_kill():
    assert container_kill_argv("docker", "c1") == ["docker", "kill", "c1"]
    assert container_kill_argv("podman", "c1") == ["podman", "kill", "c1"]
    assert container_kill_argv("apptainer", "c1") is None


def test_that_container_names_are_made_of_what_engines_accept():
    assert container_name("exp/3/sim/(('p', 'pi+'),)/1", unique="42") == "scheduler-42-exp-3-sim-p-pi-1"


def test_that_options_become_words():
    assert as_options({"events": 10, "v": None, "fast": True, "slow": False}) == ["--events", "10", "-v", "--fast"]


@pytest.mark.parametrize(
    ("name", "mode", "before"), [("s.py", 0o644, [sys.executable]), ("s.sh", 0o644, ["bash"]), ("s.bin", 0o755, [])]
)
def test_that_a_script_is_run_by_what_it_is(tmp_path, name, mode, before):
    path = tmp_path / name
    path.touch(mode=mode)

    assert script_argv(Script(str(path), {"n": 1})) == [*before, str(path), "-n", "1"]


def test_that_a_script_path_counts_from_the_directory_of_the_program(tmp_path, monkeypatch):
    (tmp_path / "s.sh").touch()
    monkeypatch.chdir(tmp_path)

    assert script_argv(Script("s.sh")) == ["bash", str(tmp_path / "s.sh")]


def test_that_a_missing_script_is_refused_with_its_path():
    with pytest.raises(ConfigurationError, match=r"'no/such\.sh' does not exist"):
        script_argv(Script("no/such.sh"))


def test_that_a_script_that_nothing_can_run_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "analysis"
    path.touch(mode=0o644)

    with pytest.raises(ConfigurationError, match=r"chmod \+x"):
        script_argv(Script(str(path)))


def fake_engine(directory, name):
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_that_the_first_engine_installed_is_taken_unless_one_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_engine(tmp_path, "podman")
    fake_engine(tmp_path, "apptainer")

    assert find_engine(None) == "podman"
    assert find_engine("apptainer") == "apptainer"


def test_that_a_missing_engine_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep)

    with pytest.raises(ConfigurationError, match="'singularity' is not on PATH"):
        find_engine("singularity")
    with pytest.raises(ConfigurationError, match="docker, podman, singularity, apptainer"):
        find_engine(None)
