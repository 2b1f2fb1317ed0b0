"""What JobLibRunner does beyond the contract of runners."""

import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import loky
import pytest

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, WasCancelled
from scheduler.core.specs import Container, Function, Resources, Script, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.runners.base_runner import Attempt
from scheduler.runners.joblib_runner import JobLibRunner
from scheduler.testing import payloads
from scheduler.testing.bench import Bench, is_alive

PATIENCE_S = 30


@pytest.fixture
def make_bench(tmp_path):
    benches = []

    def make(*arguments, **options):
        runner = JobLibRunner(*arguments, **options)
        benches.append(Bench(runner, tmp_path, payload=functools.partial(getattr, payloads), patience_s=PATIENCE_S))
        return benches[-1]

    yield make
    for bench in benches:
        bench.runner.close()


def step(payload, **more):
    return StepSpec("sim", payload, "local", **more)


def attempt(bench, payload, *, label="a1", **more):
    return Attempt(label, payload, more.pop("arguments", {}), bench.directory / "trials" / "7" / "sim" / label, **more)


def failure(outcome):
    assert isinstance(outcome, HasFailed), outcome
    return outcome.failure


# --------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(("n_jobs", "capacity"), [(1, 1), (7, 7), (-1, loky.cpu_count()), (-10_000, 1)])
def test_that_n_jobs_counts_as_in_joblib(n_jobs, capacity):
    assert JobLibRunner(n_jobs=n_jobs).capacity == capacity


def test_that_minus_two_leaves_one_core_free():
    assert JobLibRunner(n_jobs=-2).capacity == max(loky.cpu_count() - 1, 1)


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True, None])
def test_that_a_senseless_n_jobs_is_refused_with_its_value(n_jobs):
    with pytest.raises(ConfigurationError, match=f"n_jobs is {n_jobs!r}"):
        JobLibRunner(n_jobs=n_jobs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "dask"}, ["'dask'", "loky, multiprocessing, threading"]),
        ({"config": {"engine": "docker"}}, ["'engine'", "container_engine (default:", "tmp_dir (default:"]),
        ({"config": {"container_engine": "lxc"}}, ["'lxc'", "docker, podman, singularity, apptainer"]),
        ({"config": {"tmp_dir": "/no/such/place"}}, ["tmp_dir", "/no/such/place"]),
        ({"config": {"tmp_dir": 3}}, ["tmp_dir", "3"]),
    ],
)
def test_that_wrong_settings_are_refused_with_the_valid_ones(options, words):
    with pytest.raises(ConfigurationError) as refusal:
        JobLibRunner(**options)

    assert all(word in str(refusal.value) for word in words)


def test_that_making_a_runner_loads_starts_and_writes_nothing(tmp_path):
    program = f"""
        import os, sys, threading
        from scheduler.runners.joblib_runner import JobLibRunner
        runner = JobLibRunner(n_jobs=2, config={{"tmp_dir": {str(tmp_path)!r}}})
        assert repr(runner) == "JobLibRunner(n_jobs=2, backend='loky')"
        runner.close()
        heavy = {{"loky", "joblib", "psutil", "cloudpickle", "numpy"}} & set(sys.modules)
        assert not heavy, heavy
        assert threading.active_count() == 1
        assert os.listdir({str(tmp_path)!r}) == []
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=PATIENCE_S)


def test_that_workers_live_in_tmp_dir_and_leave_nothing_there(make_bench, tmp_path):
    place = tmp_path / "scratch"
    place.mkdir()
    bench = make_bench(n_jobs=1, config={"tmp_dir": place})

    bench.run(bench.attempt("add", x=1, y=2))
    during = list(place.iterdir())
    bench.runner.close()

    assert len(during) == 1
    assert list(place.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ slots


def test_that_no_more_than_n_jobs_run_at_once(make_bench):
    bench = make_bench(n_jobs=2)
    go = bench.directory / "go"
    attempts = [bench.attempt("wait_for_file", path=str(go), patience_s=PATIENCE_S) for _ in range(5)]
    ids = bench.submit(*attempts)

    seen = bench.wait_until(
        lambda: bench.runner.poll(ids), lambda seen: sum(each == IsRunning() for each in seen.values()) == 2
    )
    go.touch()
    bench.wait_for_end(ids)

    assert [seen[attempt.label] for attempt in attempts] == [IsRunning()] * 2 + [IsQueued()] * 3


def test_that_a_job_with_two_cores_takes_two_slots_and_is_not_overtaken(make_bench):
    bench = make_bench(n_jobs=2)
    go = bench.directory / "go"
    narrow = bench.attempt("wait_for_file", path=str(go), patience_s=PATIENCE_S)
    wide = bench.attempt("add", x=1, y=2, resources=Resources(cores=2))
    late = bench.attempt("add", x=3, y=4)
    ids = bench.submit(narrow, wide, late)

    bench.wait_until(lambda: bench.runner.poll(ids)[narrow.label], lambda seen: seen == IsRunning())
    meanwhile = bench.runner.poll(ids)
    go.touch()
    outcomes = bench.wait_for_end(ids)

    assert (meanwhile[wide.label], meanwhile[late.label]) == (IsQueued(), IsQueued())
    assert (outcomes[wide.label], outcomes[late.label]) == (HasSucceeded({"sum": 3}), HasSucceeded({"sum": 7}))


def test_that_waiting_attempts_of_older_trials_go_first(make_bench):
    bench = make_bench(n_jobs=1)
    go, mark = str(bench.directory / "go"), str(bench.directory / "mark")
    blocking = attempt(
        bench, Function(payloads.wait_for_file), label="blocking", arguments={"path": go, "patience_s": PATIENCE_S}
    )
    young = attempt(
        bench, Function(payloads.wait_for_file), label="young", trial=10, arguments={"path": mark, "patience_s": 0}
    )
    old = attempt(bench, Function(payloads.touch), label="old", trial=9, arguments={"path": mark})
    ids = bench.submit(blocking, young, old)

    bench.wait_until(lambda: bench.runner.poll(ids)["blocking"], lambda seen: seen == IsRunning())
    Path(go).touch()
    outcomes = bench.wait_for_end(ids)

    assert outcomes["young"] == HasSucceeded({"found": mark})


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_that_numerical_libraries_get_their_share_of_the_cores_unless_the_user_says_so(
    make_bench, monkeypatch, backend
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    bench = make_bench(n_jobs=2, backend=backend)

    def threads():
        return {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}

    narrow, wide = bench.run(
        attempt(bench, Function(threads), label="narrow"),
        attempt(bench, Function(threads), label="wide", resources=Resources(cores=2)),
    )

    share = max(loky.cpu_count() // 2, 1)
    assert narrow == HasSucceeded({"OMP_NUM_THREADS": str(share), "MKL_NUM_THREADS": "5"})
    assert wide == HasSucceeded({"OMP_NUM_THREADS": str(2 * share), "MKL_NUM_THREADS": "5"})
    assert "OMP_NUM_THREADS" not in os.environ


def test_that_more_cores_than_there_are_slots_are_refused(make_bench):
    bench = make_bench(n_jobs=2)
    greedy = attempt(bench, Function(payloads.add), resources=Resources(cores=3))

    with pytest.raises(ConfigurationError, match=r"step 'sim'.*wants 3 cores, but n_jobs is 2"):
        bench.runner.check(step(Function(payloads.add), resources=Resources(cores=3)))
    answer = bench.runner.submit([greedy])["a1"]

    assert isinstance(answer, Failure)
    assert answer.cause is Cause.SUBMISSION
    assert bench.runner.poll({"a1": "x"}) == {}


# -------------------------------------------------------------------------------------------------- functions


def test_that_lambdas_closures_partials_and_methods_work(make_bench):
    bench = make_bench(n_jobs=1)
    offset = 10

    class Detector:
        length = 2

        def measure(self, x):
            return {"y": self.length * x}

    calls = {
        "lambda": lambda x: {"y": x},
        "closure": lambda x: {"y": x + offset},
        "partial": functools.partial(payloads.add, y=5),
        "method": Detector().measure,
    }

    outcomes = bench.run(*(attempt(bench, Function(c), label=n, arguments={"x": 1}) for n, c in calls.items()))

    expected = [{"y": 1}, {"y": 11}, {"sum": 6}, {"y": 2}]
    assert outcomes == [HasSucceeded(each) for each in expected]


def test_that_a_closure_that_cannot_be_pickled_is_refused_by_name(make_bench):
    bench = make_bench(n_jobs=1)
    lock = threading.Lock()

    def objective(x):
        with lock:
            return x

    with pytest.raises(ConfigurationError, match=r"step 'sim'.*objective.*variable 'lock' \(_thread\.lock\)"):
        bench.runner.check(step(Function(objective)))
    answer = bench.runner.submit([attempt(bench, Function(objective))])["a1"]

    assert isinstance(answer, Failure)
    assert answer.cause is Cause.SUBMISSION
    assert "variable 'lock'" in answer.message


def test_that_arguments_that_cannot_be_pickled_fail_their_job_only(make_bench):
    bench = make_bench(n_jobs=1)

    bad, good = bench.run(bench.attempt("echo", value=threading.Lock()), bench.attempt("add", x=1, y=2))

    assert failure(bad).cause is Cause.SUBMISSION
    assert "pickle" in failure(bad).message
    assert good == HasSucceeded({"sum": 3})


def test_that_forks_of_the_program_see_what_cannot_be_pickled(make_bench):
    bench = make_bench(n_jobs=2, backend="multiprocessing")
    lock = threading.Lock()
    seen = []

    def objective(x):
        with lock:
            seen.append(x)
            return {"seen": seen}

    bench.runner.check(step(Function(objective)))
    outcomes = bench.run(*(attempt(bench, Function(objective), label=str(x), arguments={"x": x}) for x in range(3)))

    assert outcomes == [HasSucceeded({"seen": [x]}) for x in range(3)]
    assert seen == []


def test_that_threads_share_the_memory_of_the_program(make_bench):
    bench = make_bench(n_jobs=1, backend="threading")
    seen = []

    def objective(x):
        seen.append(x)
        return {"count": (len(seen),)}

    outcomes = bench.run(*(attempt(bench, Function(objective), label=str(x), arguments={"x": x}) for x in range(2)))

    assert outcomes == [HasSucceeded({"count": [1]}), HasSucceeded({"count": [2]})]
    assert seen == [0, 1]


def test_that_a_thread_that_is_cancelled_is_given_up_at_once_and_its_slot_is_free(make_bench):
    bench = make_bench(n_jobs=1, backend="threading")
    release = threading.Event()
    stuck = attempt(bench, Function(lambda: release.wait(PATIENCE_S)))
    ids = bench.submit(stuck)

    bench.runner.cancel(ids)

    assert bench.runner.poll(ids) == {"a1": WasCancelled()}
    assert bench.run(bench.attempt("add", x=1, y=2)) == [HasSucceeded({"sum": 3})]
    release.set()


def test_that_a_memory_limit_for_a_thread_is_refused(make_bench):
    with pytest.raises(ConfigurationError, match="memory limit"):
        make_bench(n_jobs=1, backend="threading").runner.check(
            step(Function(payloads.add), resources=Resources(memory_mb=100))
        )


def test_that_a_failing_thread_leaves_its_traceback(make_bench):
    bench = make_bench(n_jobs=1, backend="threading")

    failed = failure(bench.run(bench.attempt("fail", message="no beam"))[0])

    assert "in fail" in Path(failed.log).read_text()
    assert json.loads((Path(failed.log).parent / "error.json").read_text())["exception"] == "ValueError"


# -------------------------------------------------------------------------------------------------- directories


def test_that_the_directory_tells_what_was_run_and_what_came_out(make_bench):
    bench = make_bench(n_jobs=1)
    merged = {(("eta", 0.1),): 2.0}

    bench.run(attempt(bench, Function(payloads.echo), arguments={"value": 1.5}))
    bench.run(
        attempt(bench, Function(payloads.look_up), label="a2", arguments={"values": merged, "key": (("eta", 0.1),)})
    )

    first, second = (bench.directory / "trials" / "7" / "sim" / label for label in ("a1", "a2"))
    assert sorted(path.name for path in first.iterdir()) == ["log.txt", "parameters.json", "result.json"]
    assert json.loads((first / "parameters.json").read_text()) == {"value": 1.5}
    assert json.loads((first / "result.json").read_text()) == {"value": 1.5}
    assert json.loads((second / "parameters.json").read_text())["values"] == {"(('eta', 0.1),)": 2.0}


def test_that_a_directory_that_cannot_be_made_fails_the_attempt_at_submission(make_bench):
    bench = make_bench(n_jobs=1)
    (bench.directory / "trials").write_text("in the way")

    answer = bench.runner.submit([attempt(bench, Function(payloads.add))])["a1"]

    assert isinstance(answer, Failure)
    assert answer.cause is Cause.SUBMISSION


def test_that_a_relative_file_of_the_start_directory_is_pointed_out(make_bench, tmp_path, monkeypatch):
    (tmp_path / "field.map").touch()
    monkeypatch.chdir(tmp_path)
    bench = make_bench(n_jobs=1)

    outcome = bench.run(attempt(bench, Function(lambda: Path("field.map").read_text())))[0]

    assert f"there is one in {tmp_path}" in failure(outcome).message


# --------------------------------------------------------------------------------------- scripts and containers


def script(directory, name, text, *, mode=0o755):
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_that_a_script_gets_its_parameters_and_gives_its_result_by_files(make_bench, tmp_path, backend):
    path = script(
        tmp_path,
        "sim.py",
        "import json, os, sys\n"
        "parameters = json.load(open(os.environ['JOB_PARAMS_FILE']))\n"
        "json.dump({'y': parameters['x'] * int(sys.argv[2])}, open('result.json', 'w'))\n"
        "print('simulated')\n",
        mode=0o644,
    )
    bench = make_bench(n_jobs=1, backend=backend)
    payload = Script(str(path), {"events": 3})
    bench.runner.check(step(payload))

    outcomes = bench.run(attempt(bench, payload, arguments={"x": 2}))

    directory = bench.directory / "trials" / "7" / "sim" / "a1"
    assert outcomes == [HasSucceeded({"y": 6})]
    assert (directory / "log.txt").read_text() == "simulated\n"
    assert (directory / "command.txt").read_text() == f"{sys.executable} {path} --events 3\n"


def test_that_a_failing_script_shows_its_exit_code_and_last_words(make_bench, tmp_path):
    bench = make_bench(n_jobs=1)
    path = script(tmp_path, "sim.sh", "echo overlap in volume 7 >&2\nexit 2\n", mode=0o644)

    failed = failure(bench.run(attempt(bench, Script(str(path))))[0])

    assert failed.cause is Cause.EXCEPTION
    assert "exit code 2" in failed.message
    assert "overlap in volume 7" in failed.message


def test_that_a_result_of_an_earlier_run_in_the_same_directory_does_not_count(make_bench, tmp_path):
    bench = make_bench(n_jobs=1)
    path = script(tmp_path, "sim.sh", "#!/bin/sh\n[ -e done ] || echo 1 > result.json\ntouch done\n")
    again = Attempt("a2", Script(str(path)), {}, bench.directory / "trials" / "7" / "sim" / "a1")

    first = bench.run(attempt(bench, Script(str(path))))[0]
    second = bench.run(again)[0]

    assert first == HasSucceeded(1)
    assert failure(second).cause is Cause.RESULT


def test_that_a_script_that_does_not_exist_is_refused_in_check_and_at_submission(make_bench):
    bench = make_bench(n_jobs=1)

    with pytest.raises(ConfigurationError, match=r"step 'sim'.*'no/such\.sh' does not exist"):
        bench.runner.check(step(Script("no/such.sh")))
    answer = bench.runner.submit([attempt(bench, Script("no/such.sh"))])["a1"]

    assert isinstance(answer, Failure)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A container engine on PATH that runs the command on this machine and notes what it is asked."""
    directory = tmp_path / "bin"
    directory.mkdir()
    script(
        directory,
        "docker",
        f"""#!/bin/bash
        echo "$@" >> {tmp_path}/asked
        [ "$1" = kill ] && exit 0
        while [ "$1" != image:1 ]; do [ "$1" = --volume ] && [ -z "$job" ] && job="${{2%:/job}}"; shift; done
        cd "$job"; shift; exec "$@"
        """,
    )
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "asked"


def test_that_a_container_runs_with_the_directories_of_its_job_and_trial(make_bench, engine):
    bench = make_bench(n_jobs=1, config={"container_engine": "docker"})
    payload = Container("image:1", "cp params.json result.json")
    bench.runner.check(step(payload))

    outcomes = bench.run(attempt(bench, payload, arguments={"x": 2}))

    trial = bench.directory / "trials" / "7"
    assert outcomes == [HasSucceeded({"x": 2})]
    assert f"--volume {trial}/sim/a1:/job --volume {trial}:/workdir" in engine.read_text()
    assert "kill" not in engine.read_text()


@pytest.mark.parametrize("ending", ["cancel", "timeout", "close"])
def test_that_the_engine_is_told_to_kill_a_container_that_is_not_wanted_any_more(make_bench, engine, ending):
    bench = make_bench(n_jobs=1, config={"container_engine": "docker"})
    limits = Resources(walltime_s=1) if ending == "timeout" else Resources()
    ids = bench.submit(attempt(bench, Container("image:1", "sleep 600"), resources=limits))
    bench.wait_until(engine.exists, bool)

    if ending == "cancel":
        bench.runner.cancel(ids)
    elif ending == "close":
        bench.runner.close()
    outcome = bench.wait_for_end(ids)["a1"]

    assert isinstance(outcome, HasFailed if ending == "timeout" else WasCancelled)
    name = engine.read_text().split("--name ")[1].split()[0]
    assert engine.read_text().splitlines()[-1] == f"kill {name}"


# ------------------------------------------------------------------------------------------------------ endings


def test_that_a_label_that_is_known_is_not_run_again(make_bench):
    bench = make_bench(n_jobs=1)
    mark = bench.directory / "marks"

    def count():
        with mark.open("a") as file:
            file.write("x")

    once = attempt(bench, Function(count))
    ids = bench.submit(once)
    bench.wait_for_end(ids)

    assert bench.submit(once) == ids
    bench.wait_for_end(ids)
    assert mark.read_text() == "x"


def test_that_an_old_native_id_says_nothing_about_a_label(make_bench):
    bench = make_bench(n_jobs=1)
    ids = bench.submit(bench.attempt("add", x=1, y=2))
    bench.wait_for_end(ids)

    assert bench.runner.poll(dict.fromkeys(ids, "id-of-another-program")) == {}


def test_that_a_closed_runner_cancels_what_waits_and_can_be_used_again(make_bench):
    bench = make_bench(n_jobs=1)
    ids = bench.submit(*(bench.attempt("sleep", seconds=600) for _ in range(3)))

    bench.runner.close()

    assert set(map(type, bench.wait_for_end(ids).values())) == {WasCancelled}
    assert bench.run(bench.attempt("add", x=1, y=2)) == [HasSucceeded({"sum": 3})]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_that_many_jobs_of_all_kinds_at_once_end_as_they_should_and_leave_nothing(own_children, make_bench, backend):
    bench = make_bench(n_jobs=4, backend=backend)
    kinds = [
        (lambda: bench.attempt("add", x=1, y=2), lambda each: each == HasSucceeded({"sum": 3})),
        (lambda: bench.attempt("fail", message="no"), lambda each: failure(each).cause is Cause.EXCEPTION),
        (lambda: bench.attempt("leave", number=4), lambda each: failure(each).cause is Cause.KILLED),
        (lambda: bench.attempt("be_killed", number=9), lambda each: failure(each).cause is Cause.KILLED),
    ]
    attempts = [make() for _ in range(15) for make, _ in kinds]

    outcomes = bench.run(*attempts)
    bench.runner.close()

    assert all(is_right(outcomes[index]) for index, (_, is_right) in enumerate(kinds * 15))
    wait_until(lambda: not own_children())


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_that_a_driver_that_is_killed_leaves_no_process_behind(tmp_path, backend):
    program = f"""
        import sys, time
        from pathlib import Path
        from scheduler.core.specs import Function, Script
        from scheduler.runners.base_runner import Attempt
        from scheduler.runners.joblib_runner import JobLibRunner
        from scheduler.testing.payloads import start_family

        here = Path({str(tmp_path)!r})
        (here / "s.sh").write_text("echo $$ > pid.new; mv pid.new pid; sleep 600")
        runner = JobLibRunner(n_jobs=3, backend={backend!r})
        attempts = [
            Attempt(str(n), Function(start_family), {{"pids_file": f"{{here}}/pids{{n}}", "seconds": 600.0}},
                    here / "trials" / "0" / "step" / str(n))
            for n in range(2)
        ]
        runner.submit([*attempts, Attempt("s", Script(str(here / "s.sh")), {{}}, here / "trials" / "0" / "step" / "s")])
        time.sleep(600)
    """
    files = [tmp_path / "pids0", tmp_path / "pids1", tmp_path / "trials" / "0" / "step" / "s" / "pid"]
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    wait_until(lambda: all(file.exists() for file in files))
    pids = [int(word) for file in files for word in file.read_text().split()]
    pilots = [int(word) for word in Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()]
    assert len(pids) == 7
    assert pilots

    driver.kill()
    driver.wait()

    wait_until(lambda: not any(map(is_alive, [*pids, *pilots])))


def wait_until(is_true):
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
