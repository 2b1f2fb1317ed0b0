"""Steps of a JobLibRunner that read datasets."""

import threading
from pathlib import Path

import pytest

from scheduler.core.failures import Cause
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, WasCancelled
from scheduler.core.specs import Function, Output, Resources, Script, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.panda.catalogues import Catalogues
from scheduler.panda.datasets import LocalCatalogue
from scheduler.runners.base_runner import Attempt, OutputOrder
from scheduler.runners.joblib_runner import JobLibRunner

NAME = "user.alice.sim"


def read_all(files, x):
    return {"text": "".join(Path(name).read_text() for name in files), "x": x, "names": files}


@pytest.fixture
def catalogue(tmp_path):
    return LocalCatalogue(tmp_path / "run" / "datasets")


@pytest.fixture
def produce(catalogue, tmp_path):
    """Makes a closed dataset with a file of each content."""

    def produce(*contents, name=NAME):
        paths = [tmp_path / f"made-{number}" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content)
        catalogue.create(name)
        catalogue.add_numbered(name, paths, name="f.txt", producer="p")
        catalogue.close(name)

    return produce


@pytest.fixture
def runner():
    with_runner = JobLibRunner(n_jobs=2)
    yield with_runner
    with_runner.close()


def attempt_in(tmp_path, payload, *, label="a", inputs=None, **more):
    return Attempt(
        label=label,
        payload=payload,
        arguments={"x": 1},
        directory=tmp_path / "run" / "trials" / "0" / "end" / label,
        resources=Resources(cores=1),
        inputs={"files": NAME} if inputs is None else inputs,
        **more,
    )


def outcome_of(runner, attempt):
    """Run an attempt to its end."""
    bell = threading.Event()
    runner.on_wake(bell.set)
    submitted = runner.submit([attempt])
    while True:
        bell.clear()
        (seen,) = runner.poll(submitted).values()
        if isinstance(seen, HasSucceeded | HasFailed | WasCancelled):
            return seen
        assert bell.wait(30.0)


def test_that_a_function_gets_the_files_of_a_dataset_in_its_working_directory(runner, produce, tmp_path):
    produce("a", "b")

    seen = outcome_of(runner, attempt_in(tmp_path, Function(read_all)))

    names = [f"{NAME}_000001.f.txt", f"{NAME}_000002.f.txt"]
    assert seen == HasSucceeded({"text": "ab", "x": 1, "names": names})


def test_that_a_script_finds_the_names_in_its_parameters(runner, produce, tmp_path):
    produce("a")
    script = tmp_path / "read.py"
    script.write_text(
        "import json, os\n"
        "files = json.load(open(os.environ['JOB_PARAMS_FILE']))['files']\n"
        "json.dump({'text': open(files[0]).read()}, open('result.json', 'w'))\n"
    )

    seen = outcome_of(runner, attempt_in(tmp_path, Script(str(script))))

    assert seen == HasSucceeded({"text": "a"})


def test_that_the_catalogue_can_be_another_directory(produce, catalogue, tmp_path):
    produce("a")
    runner = JobLibRunner(n_jobs=1, config={"catalogue": "local", "catalogue_dir": str(catalogue.root)})
    attempt = attempt_in(tmp_path / "elsewhere", Function(read_all))

    try:
        assert outcome_of(runner, attempt).result["text"] == "a"
    finally:
        runner.close()


def test_that_an_unknown_dataset_fails_the_job_by_name(runner, produce, tmp_path):
    produce("a")

    seen = outcome_of(runner, attempt_in(tmp_path, Function(read_all), inputs={"files": "user.alice.sin"}))

    assert seen.failure.cause is Cause.ENVIRONMENT
    assert "dataset 'user.alice.sin' is unknown" in seen.failure.message
    assert f"did you mean '{NAME}'?" in seen.failure.message


def test_that_a_job_that_could_not_be_staged_takes_no_core(produce, tmp_path):
    produce("a")
    runner = JobLibRunner(n_jobs=1)

    try:
        missing = outcome_of(runner, attempt_in(tmp_path, Function(read_all), inputs={"files": "user.alice.x"}))
        following = outcome_of(runner, attempt_in(tmp_path, Function(read_all), label="b"))
    finally:
        runner.close()

    assert (type(missing), type(following)) == (HasFailed, HasSucceeded)


def test_that_what_a_killed_program_left_of_the_same_attempt_is_replaced(runner, produce, tmp_path):
    produce("a")
    attempt = attempt_in(tmp_path, Function(read_all))
    attempt.directory.mkdir(parents=True)
    (attempt.directory / f"{NAME}_000001.f.txt").write_text("half")

    assert outcome_of(runner, attempt).result["text"] == "a"


class Gate(LocalCatalogue):
    """A catalogue whose files take as long to come as the test wants."""

    def __init__(self, root):
        super().__init__(root)
        self.is_asked = threading.Event()
        self.may_go = threading.Event()

    def stage(self, dataset, directory):
        self.is_asked.set()
        assert self.may_go.wait(30.0)
        return super().stage(dataset, directory)


@pytest.fixture
def gate(catalogue, monkeypatch):
    gate = Gate(catalogue.root)
    monkeypatch.setattr(Catalogues, "of", lambda self, attempt: gate)
    yield gate
    gate.may_go.set()


def test_that_staging_keeps_nobody_waiting(runner, produce, gate, tmp_path):
    produce("a")
    reader = attempt_in(tmp_path, Function(read_all))
    other = attempt_in(tmp_path, Function(lambda x: {"x": x}), label="b", inputs={})
    submitted = runner.submit([reader])
    assert gate.is_asked.wait(30.0)

    seen = outcome_of(runner, other)

    assert seen == HasSucceeded({"x": 1})
    assert runner.poll(submitted) == {"a": IsQueued()}


def test_that_a_job_cancelled_while_its_files_are_on_their_way_never_runs(runner, produce, gate, tmp_path):
    produce("a")
    submitted = runner.submit([attempt_in(tmp_path, Function(read_all))])
    assert gate.is_asked.wait(30.0)

    runner.cancel(submitted)
    gate.may_go.set()
    outcome_of(runner, attempt_in(tmp_path, Function(read_all), label="b"))

    assert runner.poll(submitted) == {"a": WasCancelled()}
    assert not (tmp_path / "run" / "trials" / "0" / "end" / "a" / "result.json").exists()


def test_that_a_runner_closed_meanwhile_cancels_the_job(runner, produce, gate, tmp_path):
    produce("a")
    submitted = runner.submit([attempt_in(tmp_path, Function(read_all))])
    assert gate.is_asked.wait(30.0)

    threading.Timer(0.1, gate.may_go.set).start()
    runner.close()

    assert runner.poll(submitted) == {"a": WasCancelled()}


def test_that_a_step_that_produces_a_dataset_is_refused(runner, tmp_path):
    step = StepSpec("end", Function(read_all), "r", output=Output("user.alice.x", "f", 1, 1))
    order = OutputOrder("user.alice.x", "f", slices=1, num_events=1, num_events_per_job=1)

    with pytest.raises(ConfigurationError, match=r"step 'end' .*produces a dataset, which needs a PanDAiDDSRunner"):
        runner.check(step)
    (refused,) = runner.submit([attempt_in(tmp_path, Function(read_all), inputs={}, output=order)]).values()
    assert refused.cause is Cause.SUBMISSION


def test_that_threads_do_not_read_datasets():
    step = StepSpec("end", Function(read_all), "r", inputs={"files": NAME})

    with pytest.raises(ConfigurationError, match="a thread has no directory of its own"):
        JobLibRunner(n_jobs=1, backend="threading").check(step)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"catalogue": "castor"}, r"config\['catalogue'\] is 'castor'; it can be 'local' or 'rucio'"),
        ({"catalogue_dir": 7}, r"config\['catalogue_dir'\] must be a path, not 7"),
        ({"catalogue": "rucio", "catalogue_dir": "/x"}, "but the catalogue is Rucio: leave it out"),
        ({"rse": "X"}, "config has no key 'rse'"),
    ],
)
def test_that_a_catalogue_that_cannot_be_is_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        JobLibRunner(config=config)


def test_that_a_missing_rucio_client_names_the_extra():
    try:
        import rucio.client  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigurationError, match=r"pip install 'aid2e-scheduler\[rucio\]'"):
            JobLibRunner(config={"catalogue": "rucio"})
    else:
        pytest.skip("the Rucio client is installed here")
