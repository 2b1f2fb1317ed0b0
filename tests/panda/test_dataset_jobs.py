"""Jobs that produce and read datasets on the embedded site."""

import logging

import pytest

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, WasCancelled
from scheduler.panda.datasets import LocalCatalogue
from scheduler.runners.base_runner import OutputOrder

NAME = "user.alice.sim.trial_1"

PROGRAM = """
import json, os, time
def produce(x):
    with open("my_test.txt", "w") as file: file.write(str(x))
def produce_slice(x, slice_index, slice_count, slice_events):
    with open("my_test.txt", "w") as file: json.dump([slice_index, slice_count, slice_events], file)
    return {"slice": slice_index}
def produce_anything(**everything):
    with open("my_test.txt", "w") as file: json.dump(sorted(everything), file)
def produce_deep(x):
    os.makedirs("out")
    with open("out/my_test.txt", "w") as file: file.write("deep")
def forget(x):
    open("other.txt", "w").close()
def fail_in_last(x, slice_index, slice_count):
    produce(x)
    if slice_index == slice_count - 1: raise ValueError("no beam")
def fail_first_and_wait(x, slice_index, started):
    if slice_index == 0:
        while not os.path.exists(started): time.sleep(0.01)
        raise ValueError("no beam")
    open(started, "w").close()
    time.sleep(1000)
def produce_when(x, path):
    while not os.path.exists(path): time.sleep(0.01)
    produce(x)
def read(names):
    return {"texts": [open(name).read() for name in names], "names": names}
"""


@pytest.fixture
def module(program):
    return program.load("sim.py", PROGRAM)


@pytest.fixture
def catalogue(tmp_path):
    return LocalCatalogue(tmp_path / "run" / "datasets")


def output(*, events=1, per_job=1, dataset=NAME, file="my_test.txt"):
    return OutputOrder(dataset, file, -(-events // per_job), events, per_job)


def test_that_files_of_all_slices_go_into_a_closed_dataset_in_order(bench, module, catalogue):
    attempt = bench.attempt(module.produce_slice, x=1, output=output(events=250, per_job=100))
    assert bench.result(attempt) == {"slice": 2}
    assert catalogue.is_closed(NAME)
    assert [file.name for file in catalogue.files(NAME)] == [f"{NAME}_{n:06d}.my_test.txt" for n in (1, 2, 3)]
    read = bench.result(bench.attempt(module.read, inputs={"names": NAME}))
    assert read["texts"] == ["[0, 3, 100]", "[1, 3, 100]", "[2, 3, 50]"]
    assert read["names"] == [file.name for file in catalogue.files(NAME)]


def test_that_each_slice_has_its_own_log_and_no_working_directory_is_left(bench, module):
    attempt = bench.attempt(module.produce_slice, x=1, output=output(events=2))
    bench.run(attempt)
    assert sorted(path.name for path in attempt.directory.iterdir()) == ["slice_000001", "slice_000002"]
    for part in attempt.directory.iterdir():
        assert sorted(path.name for path in part.iterdir()) == ["log.txt", "parameters.json", "result.json"]


def test_that_a_producer_without_a_return_value_succeeds_with_none(bench, module):
    assert bench.run(bench.attempt(module.produce, x=1, output=output())) == [HasSucceeded(None)]


def test_that_only_functions_that_name_slice_parameters_get_them(bench, module):
    bench.run(bench.attempt(module.produce_anything, x=1, output=output(events=2)))
    assert bench.result(bench.attempt(module.read, inputs={"names": NAME}))["texts"] == ['["x"]', '["x"]']


def test_that_an_output_file_may_lie_deeper(bench, module, catalogue):
    bench.run(bench.attempt(module.produce_deep, x=1, output=output(file="out/my_test.txt")))
    assert [file.name for file in catalogue.files(NAME)] == [f"{NAME}_000001.my_test.txt"]


def test_that_a_missing_output_file_fails_the_job_naming_file_directory_and_what_there_is(bench, module, catalogue):
    attempt = bench.attempt(module.forget, x=1, output=output())
    failure = bench.failure(attempt)
    assert failure.cause is Cause.MISSING_OUTPUT
    assert f"'my_test.txt' was not made by 'forget' in {attempt.directory}/work; there is other.txt" in failure.message
    assert not catalogue.exists(NAME)


def test_that_a_shipped_file_of_that_name_does_not_count_as_made(program, bench, module):
    program.write("my_test.txt", "left over from a run at home")
    assert bench.failure(bench.attempt(module.forget, x=1, output=output())).cause is Cause.MISSING_OUTPUT


def test_that_one_failed_slice_fails_the_job_and_leaves_nothing_in_the_dataset(bench, module, catalogue):
    failure = bench.failure(bench.attempt(module.fail_in_last, x=1, output=output(events=3)))
    assert failure.cause is Cause.EXCEPTION
    assert failure.message.startswith("slice 3 of 3: ValueError: no beam")
    assert "slice_000003/log.txt" in failure.log
    assert not catalogue.exists(NAME)


def test_that_a_failed_slice_ends_the_others(bench, module, tmp_path):
    attempt = bench.attempt(module.fail_first_and_wait, x=1, started=str(tmp_path / "started"), output=output(events=3))
    failure = bench.failure(attempt)
    assert failure.message.startswith("slice 1 of 3: ValueError")
    assert not (attempt.directory / "slice_000003").exists()


def test_that_a_job_that_runs_again_replaces_its_files_and_the_numbers_go_on(bench, module, catalogue, caplog):
    bench.run(bench.attempt(module.produce, x=1, output=output()))
    with caplog.at_level(logging.INFO):
        bench.run(bench.attempt(module.produce, x=1, output=output()))
    assert [file.name for file in catalogue.files(NAME)] == [f"{NAME}_000002.my_test.txt"]
    assert catalogue.is_closed(NAME)
    assert any("an earlier attempt left" in record.getMessage() for record in caplog.records)


def test_that_jobs_that_share_a_dataset_all_add_to_it_and_the_last_closes_it(
    bench, module, catalogue, tmp_path, caplog
):
    go = tmp_path / "go"
    quick = bench.attempt(module.produce_when, x=1, path=str(tmp_path), output=output())
    slow = bench.attempt(module.produce_when, x=2, path=str(go), output=output())
    bench.submit(quick, slow)
    bench.wait(quick)
    assert not catalogue.is_closed(NAME)
    go.touch()
    assert bench.wait(slow) == [HasSucceeded(None)]
    assert catalogue.is_closed(NAME)
    assert len(catalogue.files(NAME)) == 2
    assert any("more than one job" in record.getMessage() for record in caplog.records)


def test_that_a_reader_waits_while_its_dataset_is_being_produced(bench, module, tmp_path):
    go = tmp_path / "go"
    producer = bench.attempt(module.produce_when, x=7, path=str(go), output=output())
    reader = bench.attempt(module.read, inputs={"names": NAME})
    bench.submit(producer, reader)
    bench.wait(producer, until=lambda seen: seen == IsRunning())
    assert bench.wait(reader, until=lambda seen: seen == IsQueued())
    go.touch()
    (seen,) = bench.wait(reader)
    assert seen.result["texts"] == ["7"]


def test_that_jobs_that_read_what_the_other_writes_do_not_wait_for_each_other_for_ever(bench, program):
    module = program.load(
        "ring.py",
        """
        def start():
            open("f", "w").close()
        def carry(x, names):
            open("f", "w").close()
            return {"n": len(names)}
        """,
    )
    one, two = "user.alice.one", "user.alice.two"
    bench.run(*(bench.attempt(module.start, output=output(dataset=name, file="f")) for name in (one, two)))
    there = bench.attempt(module.carry, x=1, inputs={"names": one}, output=output(dataset=two, file="f"))
    back = bench.attempt(module.carry, x=2, inputs={"names": two}, output=output(dataset=one, file="f"))
    assert bench.run(there, back) == [HasSucceeded({"n": 1}), HasSucceeded({"n": 2})]


def test_that_a_job_that_reads_the_dataset_it_writes_is_refused(bench, module):
    attempt = bench.attempt(module.read, inputs={"names": NAME}, output=output())
    refusal = bench.submit(attempt)[attempt.label]
    assert isinstance(refusal, Failure)
    assert f"reads dataset '{NAME}' and writes it" in refusal.message


def test_that_a_reader_of_an_unknown_dataset_fails_naming_it_and_what_is_near(bench, module):
    bench.run(bench.attempt(module.produce, x=1, output=output()))
    failure = bench.failure(bench.attempt(module.read, inputs={"names": "user.alice.sim.trial_2"}))
    assert failure.cause is Cause.ENVIRONMENT
    assert "dataset 'user.alice.sim.trial_2' is unknown" in failure.message
    assert f"did you mean '{NAME}'?" in failure.message


def test_that_a_reader_of_a_dataset_that_somebody_changed_fails(bench, module, catalogue):
    bench.run(bench.attempt(module.produce, x=1, output=output()))
    (catalogue.root / NAME / "files" / f"{NAME}_000001.my_test.txt").write_text("2")
    assert "was changed" in bench.failure(bench.attempt(module.read, inputs={"names": NAME})).message


def test_that_a_cancelled_producer_leaves_nothing(bench, module, catalogue, tmp_path):
    attempt = bench.attempt(module.produce_when, x=1, path=str(tmp_path / "never"), output=output(events=3))
    bench.submit(attempt)
    bench.wait(attempt, until=lambda seen: seen == IsRunning())
    bench.runner.cancel({attempt.label: attempt.label})
    assert bench.wait(attempt) == [WasCancelled()]
    assert not catalogue.exists(NAME)


@pytest.mark.parametrize("dataset", ["user.alice.pi+", "user.alice." + "x" * 230])
def test_that_names_that_rucio_would_refuse_are_refused_before_the_job_runs(bench, module, dataset):
    attempt = bench.attempt(module.produce, x=1, output=output(dataset=dataset))
    refusal = bench.submit(attempt)[attempt.label]
    assert isinstance(refusal, Failure)
    assert refusal.cause is Cause.SUBMISSION
    assert dataset in refusal.message


def test_that_datasets_of_several_runs_can_share_a_catalogue(make_bench, module, tmp_path):
    config = {"catalogue_dir": tmp_path / "shared"}
    first, second = make_bench(config=config), make_bench(config=config)
    first.run(first.attempt(module.produce, x=5, output=output()))
    assert second.result(second.attempt(module.read, inputs={"names": NAME}))["texts"] == ["5"]


def test_that_an_input_that_would_overwrite_a_shipped_file_is_an_error(program, bench, module):
    bench.run(bench.attempt(module.produce, x=1, output=output()))
    bench.runner.close()
    program.write(f"{NAME}_000001.my_test.txt", "mine")
    (seen,) = bench.run(bench.attempt(module.read, inputs={"names": NAME}))
    assert isinstance(seen, HasFailed)
    assert "already" in seen.failure.message
