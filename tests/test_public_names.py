"""What existing programs rely on: import paths, names and signatures. A change here breaks users' programs."""

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import scheduler

HOMES = {
    "scheduler": [
        "AxScheduler",
        "BaseRunner",
        "Infeasible",
        "Job",
        "JobLibRunner",
        "JobState",
        "JobType",
        "MultiStepsFunction",
        "PanDAiDDSRunner",
        "Resources",
        "SlurmRunner",
        "Trial",
        "TrialState",
    ],
    "scheduler.job.job": ["Job", "JobType"],
    "scheduler.job.job_state": ["JobState"],
    "scheduler.job.multi_steps_job": ["MultiStepsFunction", "MultiStepsJob"],
    "scheduler.runners": ["BaseRunner", "JobLibRunner", "PanDAiDDSRunner", "SlurmRunner"],
    "scheduler.runners.base_runner": ["BaseRunner"],
    "scheduler.runners.joblib_runner": ["JobLibRunner"],
    "scheduler.runners.pandaidds_runner": ["PanDAiDDSRunner"],
    "scheduler.runners.slurm_runner": ["SlurmRunner"],
    "scheduler.trial": ["Trial", "TrialState"],
    "scheduler.trial.trial": ["Trial"],
    "scheduler.trial.trial_state": ["TrialState"],
    "scheduler.utils.common": ["setup_logging"],
}

REQUIRED = inspect.Parameter.empty
ANY_NAME = "(passed by position)"

SIGNATURES = {
    "scheduler.ax_scheduler:AxScheduler": {"ax_client_or_experiment": REQUIRED, "runner": REQUIRED, "config": None},
    "scheduler.ax_scheduler:AxScheduler.set_objective_function": {"self": REQUIRED, ANY_NAME: REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.set_script_objective": {
        "self": REQUIRED,
        "script_path": REQUIRED,
        "script_options": None,
    },
    "scheduler.ax_scheduler:AxScheduler.set_container_objective": {
        "self": REQUIRED,
        "container_image": REQUIRED,
        "container_command": None,
        "container_options": None,
    },
    "scheduler.ax_scheduler:AxScheduler.run_optimization": {"self": REQUIRED, "max_trials": 10},
    "scheduler.ax_scheduler:AxScheduler.run_trial": {"self": REQUIRED, ANY_NAME: REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.get_next_trial": {"self": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.complete_trial": {"self": REQUIRED, ANY_NAME: REQUIRED, "raw_data": None},
    "scheduler.ax_scheduler:AxScheduler.monitor_trials": {"self": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.wait_for_completed_trials": {"self": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.is_multi_objective": {"self": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.save_experiment": {"self": REQUIRED, "path": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.load_experiment": {"self": REQUIRED, "path": REQUIRED},
    "scheduler.ax_scheduler:AxScheduler.batch_trial_context": {"self": REQUIRED},
    "scheduler.job.multi_steps_job:MultiStepsFunction": {
        "objective_funcs": REQUIRED,
        "deps": None,
        "final": None,
        "global_parameters": None,
        "global_parameters_steps": None,
    },
    "scheduler.runners.joblib_runner:JobLibRunner": {"n_jobs": -1, "backend": "loky", "config": None},
    "scheduler.runners.slurm_runner:SlurmRunner": {
        "partition": "batch",
        "time_limit": "01:00:00",
        "memory": "4G",
        "cpus_per_task": 1,
        "config": None,
    },
    "scheduler.runners.pandaidds_runner:PanDAiDDSRunner": {
        "name": None,
        "cloud": "US",
        "queue": "BNL_PanDA_1",
        "vo": "wlcg",
        "init_env": None,
        "source_dir": None,
        "source_dir_parent_level": 1,
        "exclude_source_files": None,
        "max_walltime": 36000,
        "core_count": 1,
        "total_memory": 4000,
        "enable_separate_log": True,
        "global_parameters": None,
        "job_dir": None,
        "funcs": None,
        "deps": None,
        "config": None,
    },
    "scheduler.utils.common:setup_logging": {"log_file": None, "log_level": None},
}

LOOK_AT_IMPORT = """
import json, logging, os, sys
environment, files = dict(os.environ), sorted(os.listdir())
import scheduler
print(json.dumps({
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "submodules": sorted(name for name in sys.modules if name.startswith("scheduler.")),
    "environment changed": environment != dict(os.environ),
    "files made": sorted(set(os.listdir()) - set(files)),
    "log handlers": len(logging.getLogger().handlers),
}))
"""


@pytest.mark.parametrize(("module", "names"), HOMES.items())
def test_that_names_are_found_where_programs_import_them_from(module, names):
    home = importlib.import_module(module)

    missing = [name for name in names if not hasattr(home, name)]

    assert missing == []


def test_that_a_name_is_the_same_object_on_every_path():
    for name in HOMES["scheduler"]:
        homes = [module for module, names in HOMES.items() if name in names]
        objects = {id(getattr(importlib.import_module(module), name)) for module in homes}
        assert len(objects) == 1, f"{name} is not one thing in {homes}"


def test_that_the_package_offers_exactly_the_public_names():
    assert sorted(scheduler.__all__) == HOMES["scheduler"]
    assert set(HOMES["scheduler"]) <= set(dir(scheduler))


def test_that_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchRunner"):
        _ = scheduler.NoSuchRunner


@pytest.mark.parametrize(("path", "expected"), SIGNATURES.items())
def test_that_a_signature_takes_what_programs_pass(path, expected):
    module, _, qualname = path.partition(":")
    subject = importlib.import_module(module)
    for part in qualname.split("."):
        subject = getattr(subject, part)

    parameters = inspect.signature(subject).parameters

    assert len(parameters) >= len(expected)
    for found, (name, default) in zip(parameters.values(), expected.items(), strict=False):
        assert name in {found.name, ANY_NAME}
        assert (found.default or None) == default, f"default of {name}; an empty list is as good as None"
    added = list(parameters.values())[len(expected) :]
    assert [p.name for p in added if p.default is REQUIRED] == [], "further parameters must be optional"


def test_that_the_job_types_have_the_names_that_programs_use():
    assert {member.name for member in scheduler.JobType} >= {"FUNCTION", "SCRIPT", "CONTAINER"}


def test_that_importing_the_package_loads_nothing_heavy_and_changes_nothing(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", LOOK_AT_IMPORT], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    seen = json.loads(process.stdout)

    heavy = {"ax", "botorch", "torch", "numpy", "pandas", "joblib", "loky", "cloudpickle", "psutil", "rich", "idds"}
    assert heavy.isdisjoint(seen["loaded"])
    assert seen["submodules"] == []
    assert not seen["environment changed"]
    assert seen["files made"] == []
    assert seen["log handlers"] == 0
