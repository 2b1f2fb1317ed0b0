import logging

import pytest

from scheduler.core.specs import Container, Function, Output, Script, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.runners.pandaidds_runner import PanDAiDDSRunner
from scheduler.runners.slurm_runner import SlurmRunner


@pytest.fixture(autouse=True)
def no_service(monkeypatch):
    for name in ("PANDA_URL", "PANDA_URL_SSL", "IDDS_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"max_walltime": -1}, "max_walltime must be a number of seconds greater than zero, not -1"),
        ({"max_walltime": 0}, "max_walltime"),
        ({"max_walltime": float("nan")}, "max_walltime"),
        ({"max_walltime": "1h"}, "max_walltime.*'1h'"),
        ({"core_count": 0}, "core_count must be a whole number of at least 1, not 0"),
        ({"core_count": 1.5}, "core_count"),
        ({"total_memory": -5}, "total_memory"),
        ({"total_memory": True}, "total_memory"),
        ({"init_env": 3}, "init_env must be text or a list of lines"),
        ({"init_env": ["a", 3]}, "init_env"),
        ({"source_dir": "/no/such/place"}, "'/no/such/place' does not exist"),
        ({"source_dir": 3}, "source_dir must be a path"),
        ({"source_dir_parent_level": -1}, "source_dir_parent_level"),
        ({"exclude_source_files": ["*.log"]}, r"'\*\.log' is no valid regular expression"),
        ({"exclude_source_files": "work"}, "must be a list"),
        ({"job_dir": 3}, "job_dir must be a path"),
        ({"config": {"slot": 2}}, r"unknown config 'slot'; valid are 'slots' \(default None\), 'catalogue'"),
        ({"config": {"slots": 0}}, r"config\['slots'\]"),
        ({"config": {"capacity": 0}}, r"config\['capacity'\]"),
        ({"config": {"catalogue_dir": 3}}, r"config\['catalogue_dir'\]"),
        ({"service": "slurm"}, "service='slurm' is unknown; choose one of 'auto', 'panda', 'idds', 'local'"),
        ({"funcs": {"a": 1}}, "takes no funcs.*MultiStepsFunction"),
        ({"deps": {"a": 1}, "global_parameters": {"b": [1]}}, "takes no deps, global_parameters"),
    ],
)
def test_that_a_wrong_argument_is_refused_by_name(arguments, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        PanDAiDDSRunner(**arguments)


@pytest.mark.parametrize(("service", "missing"), [("panda", "PANDA_URL_SSL"), ("idds", "PANDA_URL_SSL and IDDS_HOST")])
def test_that_a_service_that_is_not_configured_is_refused_and_never_replaced_by_this_machine(service, missing):
    with pytest.raises(ConfigurationError, match=f'{missing} in the environment.*service="local"'):
        PanDAiDDSRunner(service=service)


def test_that_auto_means_the_grid_when_a_service_is_configured(monkeypatch):
    monkeypatch.setenv("PANDA_URL_SSL", "https://panda.example.org/server/panda")
    assert PanDAiDDSRunner().service == "panda"
    assert PanDAiDDSRunner(service="local").service == "local"


def test_that_half_a_configuration_never_runs_locally_in_silence(monkeypatch):
    monkeypatch.setenv("PANDA_URL", "https://panda.example.org/server/panda")
    with pytest.raises(ConfigurationError, match="PANDA_URL_SSL in the environment"):
        PanDAiDDSRunner()


def test_that_the_grid_queues_by_itself_unless_it_is_bounded(monkeypatch):
    monkeypatch.setenv("PANDA_URL_SSL", "https://panda.example.org/server/panda")
    assert PanDAiDDSRunner().capacity is None
    assert PanDAiDDSRunner(config={"capacity": 7}).capacity == 7


def test_that_a_function_that_wants_to_know_its_slice_is_refused_on_the_grid(monkeypatch, program):
    monkeypatch.setenv("PANDA_URL_SSL", "https://panda.example.org/server/panda")
    function = program.load("slices.py", "def produce(x, slice_index): return x").produce
    runner = PanDAiDDSRunner(source_dir=program.directory)
    runner.check(step(Function(function), output=Output("user.a.b", "f", num_events=2, num_events_per_job=2)))
    with pytest.raises(ConfigurationError, match=r"step 'sim': its function takes slice_index.*2 slices"):
        runner.check(step(Function(function), output=Output("user.a.b", "f", num_events=2)))


def test_that_auto_says_in_one_line_that_jobs_run_here(caplog):
    with caplog.at_level(logging.INFO):
        assert PanDAiDDSRunner().service == "local"
    assert [record.getMessage() for record in caplog.records] == [
        "no PanDA service is configured (PANDA_URL_SSL is not set): jobs run on this machine"
    ]


def test_that_the_arguments_of_existing_programs_are_taken():
    runner = PanDAiDDSRunner(
        name="user.alice.my_experiment",
        cloud="US",
        queue="BNL_OSG_PanDA_1",
        vo="wlcg",
        init_env="env; ",
        source_dir=None,
        source_dir_parent_level=1,
        exclude_source_files=[r"(^|/)\.[^/]+", "doc*", "work", "__pycache__"],
        max_walltime=3600,
        core_count=1,
        total_memory=4000,
        enable_separate_log=True,
        global_parameters={},
        job_dir=None,
        funcs={},
        deps={},
        config=None,
    )
    assert runner.grid.queue == "BNL_OSG_PanDA_1"
    assert "max_walltime=3600" in repr(runner)
    assert "user.alice.my_experiment" in repr(runner)


@pytest.mark.parametrize(("slots", "core_count", "capacity"), [(8, 1, 8), (8, 3, 2), (2, 16, 1)])
def test_that_the_capacity_is_how_many_jobs_fit(slots, core_count, capacity):
    assert PanDAiDDSRunner(core_count=core_count, config={"slots": slots}).capacity == capacity


def test_that_the_capacity_is_that_of_the_machine_by_default():
    assert PanDAiDDSRunner().capacity >= 1


@pytest.fixture
def objective(program):
    return program.load("sim.py", "def objective(x): return x").objective


def step(payload, **settings):
    return StepSpec("sim", payload, "grid", **settings)


def test_that_a_good_step_passes_the_check(bench, objective):
    bench.runner.check(step(Function(objective), output=Output("user.a.b", "out/file.txt")))


@pytest.mark.parametrize("payload", [Script("run.sh"), Container("image:latest")])
def test_that_scripts_and_containers_are_refused(bench, payload):
    with pytest.raises(ConfigurationError, match=f"step 'sim'.*not '{payload.name}'.*JobLibRunner"):
        bench.runner.check(step(payload))


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/../../b", "", "."])
def test_that_an_output_file_outside_the_working_directory_is_refused(bench, objective, file):
    with pytest.raises(ConfigurationError, match="step 'sim': output_file"):
        bench.runner.check(step(Function(objective), output=Output("user.a.b", file)))


def test_that_a_step_that_reads_the_dataset_it_writes_is_refused(bench, objective):
    looping = step(Function(objective), output=Output("user.a.#job_id", "f"), inputs={"names": "user.a.#job_id"})
    with pytest.raises(ConfigurationError, match=r"step 'sim' reads dataset 'user.a.#job_id' and writes it"):
        bench.runner.check(looping)


def test_that_a_function_that_cannot_be_shipped_is_refused_with_the_step(bench):
    with pytest.raises(ConfigurationError, match=r"step 'sim': .*is a lambda"):
        bench.runner.check(step(Function(lambda x: x)))


def test_that_files_that_cannot_be_shipped_are_refused_with_the_step(bench, program, objective):
    (program.directory / "link").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"step 'sim': the link .* leads to nowhere"):
        bench.runner.check(step(Function(objective)))


@pytest.mark.parametrize(("level", "root"), [(0, "a/b"), (1, "a"), (2, ".")])
def test_that_the_directory_of_the_function_is_that_many_levels_up(make_bench, program, level, root):
    function = program.load("a/b/sim.py", "def objective(x): return x").objective
    bench = make_bench(source_dir="function", source_dir_parent_level=level)
    program.write("outer.py", "")
    job = bench.runner._job(bench.attempt(function))
    assert job.selection.root == (program.directory / root).resolve()
    assert job.location.module == ["sim", "b.sim", "a.b.sim"][level]


def test_that_too_many_levels_are_refused(make_bench, program, objective):
    bench = make_bench(source_dir="function", source_dir_parent_level=99)
    with pytest.raises(ConfigurationError, match="source_dir_parent_level=99"):
        bench.runner.check(step(Function(objective)))


def test_that_levels_have_no_effect_on_the_current_directory(make_bench, program, objective, monkeypatch):
    monkeypatch.chdir(program.directory)
    bench = make_bench(source_dir=None, source_dir_parent_level=3)
    assert bench.runner._job(bench.attempt(objective)).selection.root == program.directory


def test_that_a_runner_that_ran_nothing_can_be_closed_and_asked(bench):
    assert bench.runner.poll({"a": "a"}) == {}
    assert bench.runner.find(["a"]) == {}
    bench.runner.cancel({"a": "a"})
    bench.runner.close()
    bench.runner.close()


def test_that_slurm_says_that_it_is_not_built_and_what_to_use():
    with pytest.raises(ConfigurationError, match=r"not built yet.*JobLibRunner"):
        SlurmRunner(partition="batch", time_limit="01:00:00", memory="4G", cpus_per_task=1, config=None)
