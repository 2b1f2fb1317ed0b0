from __future__ import annotations

import json
import logging

import pytest

from scheduler.config import SchedulerConfig
from scheduler.core.plan import JobId
from scheduler.errors import ConfigurationError
from scheduler.run_directory import RunDirectory
from scheduler.utils.common import setup_logging


def test_that_an_unknown_config_key_lists_the_valid_ones_with_defaults():
    with pytest.raises(ConfigurationError, match=r"'max_paralel_trials'; did you mean 'max_parallel_trials'.*"
                       r"failure_rate \(0.5\)"):  # fmt: skip
        SchedulerConfig.from_mapping({"max_paralel_trials": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("monitoring_interval", 0),
        ("monitoring_interval", "10"),
        ("max_trial_monitoring_time", -1),
        ("failure_rate", 1.5),
        ("failure_rate", -0.1),
        ("straggler_factor", 1),
        ("straggler_factor", None),
        ("min_failed_trials", 0),
        ("max_parallel_trials", 0),
        ("max_parallel_trials", 2.5),
        ("max_parallel_trials", True),
        ("synchronous", "yes"),
        ("cleanup_after_completion", 1),
        ("progress", "loud"),
        ("job_output_dir", None),
        ("run_dir", 7),
        ("cache_dir", 7),
    ],
)
def test_that_a_value_that_cannot_be_is_refused_by_key_and_value(key, value):
    with pytest.raises(ConfigurationError, match=rf"config\['{key}'\] is {value!r}"):
        SchedulerConfig.from_mapping({key: value})


def test_that_the_cache_is_beside_the_runs_unless_the_program_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert SchedulerConfig().cache_directory == tmp_path / "scheduler_runs" / ".cache"
    assert SchedulerConfig(job_output_dir="out").cache_directory == tmp_path / "out" / ".cache"
    assert SchedulerConfig(cache_dir="mine").cache_directory == tmp_path / "mine"
    assert SchedulerConfig(cache_dir="~/cache").cache_directory == tmp_path / "home" / "cache"


def test_that_every_key_reaches_the_engine():
    config = SchedulerConfig.from_mapping(
        {
            "monitoring_interval": 0.05,
            "max_trial_monitoring_time": 60,
            "max_parallel_trials": 7,
            "failure_rate": 0.25,
            "straggler_factor": 3,
            "min_failed_trials": 9,
        }
    )
    settings = config.engine_settings

    assert (settings.poll_max_s, settings.poll_min_s) == (0.05, 0.05)
    assert (settings.trial_timeout_s, settings.max_parallel_trials) == (60, 7)
    assert (settings.failure_rate, settings.min_failed_trials) == (0.25, 9)
    assert settings.straggler_factor == 3
    assert SchedulerConfig.from_mapping({"synchronous": True}).engine_settings.max_parallel_trials == 1


def test_that_runs_of_the_same_name_get_directories_of_their_own(tmp_path):
    names = [RunDirectory.create("my exp", tmp_path).path.name for _ in range(3)]

    assert len(set(names)) == 3
    assert all(name.startswith("my_exp") for name in names)


def test_that_the_directory_of_a_simple_name_is_that_name(tmp_path):
    assert [RunDirectory.create("exp", tmp_path / "runs").path.name for _ in range(2)] == ["exp", "exp-2"]


def test_that_a_chosen_directory_must_be_empty(tmp_path):
    (tmp_path / "file").write_text("precious")

    with pytest.raises(ConfigurationError, match="is not empty"):
        RunDirectory.create("exp", ".", tmp_path)
    assert (tmp_path / "file").read_text() == "precious"


def test_that_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot make a run directory"):
        RunDirectory.create("exp", tmp_path / "file" / "below")


def test_that_run_json_says_how_the_run_came_about(tmp_path):
    run = RunDirectory.create("exp", tmp_path)

    about = json.loads((run.path / "run.json").read_text())
    assert about["run_id"] == run.run_id
    assert {"program", "arguments", "working_directory", "python", "versions", "host", "git"} <= about.keys()


def test_that_every_attempt_has_a_directory_of_its_own_below_its_trial(tmp_path):
    run = RunDirectory.create("exp", tmp_path)
    points = [
        (),
        (("p", "pi+"),),
        (("p", "pi/+"),),
        (("p", "pi_+"),),
        (("p", "x" * 300),),
        (("p", "x" * 301),),
        (("p", ".."),),
    ]
    paths = [run.attempt_directory(JobId(3, "sim", point), attempt) for point in points for attempt in (1, 2)]

    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.parent == run.path / "trials" / "3" / "sim"
        path.mkdir(parents=True)


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield root
    for handler in set(root.handlers) - set(before[0]):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[1])


def test_that_setup_logging_writes_once_to_the_file_even_when_called_twice(tmp_path, root_logger):
    file = tmp_path / "run.log"
    setup_logging(log_file=str(file), log_level="debug")
    setup_logging(log_file=str(file), log_level="info")

    logging.getLogger("my.program").info("hello")
    logging.getLogger("my.program").debug("not this")

    assert file.read_text().count("hello") == 1
    assert "not this" not in file.read_text()


def test_that_an_unknown_level_is_refused(root_logger):
    with pytest.raises(ConfigurationError, match="'loud' is no level"):
        setup_logging(log_level="loud")
