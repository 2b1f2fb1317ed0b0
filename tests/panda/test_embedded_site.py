"""What happens to jobs on the embedded site: files, environment, limits, failures."""

import json
import os
import re
import sys
import time
from pathlib import Path

import psutil
import pytest

from scheduler.core.failures import Cause, Failure
from scheduler.core.observations import HasFailed, HasSucceeded, IsQueued, IsRunning, WasCancelled
from scheduler.core.specs import Resources


def test_that_a_function_runs_in_a_fresh_copy_of_what_was_shipped(program, bench, tmp_path):
    program.write("data.txt", "shipped")
    program.write("helper.py", "def double(x): return 2 * x")
    module = program.load(
        "sim.py",
        """
        import os, sys
        from helper import double
        def objective(x):
            found = sorted(os.listdir())
            with open("data.txt") as file: text = file.read()
            with open("data.txt", "w") as file: file.write("changed by a job")
            open("left_behind", "w").close()
            return {"objective": double(x), "found": found, "text": text, "here": os.getcwd(), "path": sys.path[0]}
        """,
    )
    attempts = [bench.attempt(module.objective, x=x) for x in (1, 2)]
    results = [seen.result for seen in bench.run(*attempts)]
    assert [result["objective"] for result in results] == [2, 4]
    for result, attempt in zip(results, attempts, strict=True):
        assert result["found"] == ["data.txt", "helper.py", "sim.py"]
        assert result["text"] == "shipped"
        assert result["here"] == result["path"] == str(attempt.directory / "work")
    assert (program.directory / "data.txt").read_text() == "shipped"


def test_that_a_module_is_imported_once_for_many_jobs(program, bench, tmp_path):
    module = program.load(
        "sim.py",
        f"""
        import os
        with open({str(tmp_path / "imports")!r}, "a") as file: file.write(__name__ + " ")
        def objective(x): return {{"pid": os.getpid(), "parent": os.getppid()}}
        """,
    )
    (tmp_path / "imports").unlink()
    seen = bench.run(*(bench.attempt(module.objective, x=x) for x in range(10)))
    assert len({each.result["pid"] for each in seen}) == 10
    assert len({each.result["parent"] for each in seen}) == 1
    assert (tmp_path / "imports").read_text() == "sim "


def test_that_functions_of_several_files_run_in_one_pilot(program, bench):
    text = "import os\ndef objective(x): return {'parent': os.getppid(), 'name': __name__}"
    modules = [program.load("one.py", text), program.load("deep/two.py", text)]
    first, second = (bench.result(bench.attempt(module.objective, x=1)) for module in modules)
    assert (first["name"], second["name"]) == ("one", "deep.two")
    assert first["parent"] == second["parent"]


def test_that_a_function_may_take_all_arguments_as_one_mapping(program, bench):
    module = program.load("sim.py", "def objective(parameters): return dict(parameters)")
    assert bench.result(bench.attempt(module.objective, takes_mapping=True, x=1, y=2)) == {"x": 1, "y": 2}


def test_that_gathered_results_keep_their_keys(program, bench):
    module = program.load("sim.py", "def merge(xyz): return {'sum': xyz[(('eta', 0.1), ('particle', 'pi+'))]}")
    attempt = bench.attempt(module.merge, xyz={(("eta", 0.1), ("particle", "pi+")): 42})
    assert bench.result(attempt) == {"sum": 42}
    assert "pi+" in (attempt.directory / "parameters.json").read_text()


def test_that_logs_and_results_are_kept_and_working_directories_only_of_failures(program, bench):
    module = program.load(
        "sim.py",
        """
        def objective(x):
            print("working on", x)
            if x < 0: raise ValueError("negative")
            return {"objective": x}
        """,
    )
    good, bad = bench.attempt(module.objective, x=1), bench.attempt(module.objective, x=-1)
    bench.run(good, bad)
    assert names_in(good.directory) == ["log.txt", "parameters.json", "result.json"]
    assert json.loads((good.directory / "parameters.json").read_text()) == {"x": 1}
    assert names_in(bad.directory) == ["error.json", "log.txt", "parameters.json", "work"]
    assert "working on 1" in (good.directory / "log.txt").read_text()


def test_that_an_attempt_in_the_directory_of_an_earlier_one_starts_afresh(program, bench):
    module = program.load(
        "sim.py",
        """
        import os
        def objective(x):
            found = os.path.exists("left")
            open("left", "w").close()
            if x < 0: raise ValueError("negative")
            return {"found": found}
        """,
    )
    first = bench.attempt(module.objective, x=-1)
    assert bench.failure(first).cause is Cause.EXCEPTION
    assert bench.result(bench.attempt(module.objective, directory=first.directory, x=1)) == {"found": False}
    assert not (first.directory / "error.json").exists()


def test_that_an_exception_is_told_with_its_traceback_in_the_log(program, bench):
    module = program.load("sim.py", "def objective(x):\n    raise RuntimeError('no beam')")
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.EXCEPTION
    assert "RuntimeError: no beam" in failure.message
    assert 'sim.py", line 2, in objective' in Path(failure.log).read_text()


# ------------------------------------------------------------------------------------------------------------ init_env


def test_that_what_init_env_exports_holds_in_the_job_and_means_its_own_directory(program, make_bench):
    module = program.load(
        "sim.py", "import os\ndef objective(x): return {n: os.environ[n] for n in ('AIDE_HOME', 'OPT', 'PWD')}"
    )
    bench = make_bench(init_env=["export AIDE_HOME=$(pwd);", 'export OPT="--bind /cvmfs:/cvmfs,$(pwd):$(pwd)"; '])
    attempt = bench.attempt(module.objective, x=1)
    work = str(attempt.directory / "work")
    assert bench.result(attempt) == {"AIDE_HOME": work, "OPT": f"--bind /cvmfs:/cvmfs,{work}:{work}", "PWD": work}


def test_that_a_failing_line_of_init_env_is_reported_in_the_log_and_does_not_stop(program, make_bench, tmp_path):
    module = program.load("sim.py", "import os\ndef objective(x): return {'after': os.environ['AFTER']}")
    bench = make_bench(init_env="source /no/such/setup.sh; command_that_does_not_exist\nfalse\nexport AFTER=yes;")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"after": "yes"}
    (log,) = (tmp_path / "run" / "sandboxes").glob("init-*.log")
    text = log.read_text()
    assert "/no/such/setup.sh: No such file" in text
    assert "init_env: exit code 127: command_that_does_not_exist" in text
    assert "init_env: exit code 1: false" in text


def test_that_init_env_may_print_and_read_without_disturbing_the_pilot(program, make_bench):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    bench = make_bench(init_env='echo \'{"report": "ended"}\'; cat; read line; env; ')
    assert bench.result(bench.attempt(module.objective, x=3)) == {"x": 3}


def test_that_files_made_by_init_env_are_in_every_working_directory(program, make_bench):
    module = program.load("sim.py", "def objective(x): return {'made': open('made.txt').read()}")
    bench = make_bench(init_env="echo -n by init > made.txt")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"made": "by init"}


def test_that_the_python_after_init_env_runs_the_jobs(program, make_bench, tmp_path):
    module = program.load("sim.py", "import os\ndef objective(x): return {'through': os.environ['THROUGH']}")
    fake = program.write("bin/python3", '#!/bin/sh\nexport THROUGH=mine\nPATH=${PATH#*:} exec python3 "$@"\n')
    fake.chmod(0o755)
    bench = make_bench(init_env="export PATH=$(pwd)/bin:$PATH")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"through": "mine"}


@pytest.mark.parametrize(
    ("init_env", "said"),
    [
        ("echo going away; exit 3", "exit code 3.*going away"),
        ("if then", "syntax error"),
        ("export PATH=/nowhere", "python3"),
    ],
)
def test_that_a_shell_that_ends_is_a_failure_of_the_environment_with_its_last_words(
    program, make_bench, init_env, said
):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    bench = make_bench(init_env=init_env)
    seen = bench.run(*(bench.attempt(module.objective, x=x) for x in range(3)))
    assert {each.failure.cause for each in seen} == {Cause.ENVIRONMENT}
    assert len({each.failure.message for each in seen}) == 1
    failure = seen[0].failure
    assert "init_env" in failure.message
    assert Path(failure.log).exists()
    assert re.search(said, failure.message), failure.message


def test_that_an_environment_that_failed_is_set_up_again_for_the_next_attempt(program, make_bench, tmp_path):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    flag = tmp_path / "mended"
    bench = make_bench(init_env=f"test -e {flag} || exit 3")
    assert bench.failure(bench.attempt(module.objective, x=1)).cause is Cause.ENVIRONMENT
    flag.touch()
    assert bench.result(bench.attempt(module.objective, x=1)) == {"x": 1}


def test_that_init_env_that_never_ends_is_stopped_by_the_time_limit(program, make_bench):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    bench = make_bench(init_env="sleep 1000", max_walltime=0.5)
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.ENVIRONMENT
    assert "init_env" in failure.message


# -------------------------------------------------------------------------------------------------- honest shipping


def test_that_a_module_that_was_excluded_fails_to_import_with_the_pattern_that_took_it(program, make_bench):
    program.write("catalog.py", "value = 1")
    module = program.load("sim.py", "import catalog\ndef objective(x): return {'x': catalog.value}")
    bench = make_bench(exclude_source_files=[".*log"])
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.ENVIRONMENT
    assert "module 'catalog' was not shipped: catalog.py is taken by the exclude pattern '.*log'" in failure.message


def test_that_an_excluded_module_is_named_also_when_the_function_imports_it(program, make_bench):
    program.write("tools/deep.py", "value = 1")
    module = program.load("sim.py", "def objective(x):\n    import tools.deep\n    return {'x': tools.deep.value}")
    bench = make_bench(exclude_source_files=["tools"])
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert "module 'tools' was not shipped: tools is taken by the exclude pattern 'tools'" in failure.message


def test_that_a_module_outside_the_source_directory_is_named_with_its_place(program, bench, tmp_path, monkeypatch):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "my_private_tools.py").write_text("value = 1")
    monkeypatch.syspath_prepend(outside)
    module = program.load("sim.py", "import my_private_tools\ndef objective(x): return {'x': my_private_tools.value}")
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.ENVIRONMENT
    assert f"module 'my_private_tools' is {outside}/my_private_tools.py here, which is outside" in failure.message


def test_that_the_source_directory_on_pythonpath_does_not_help(program, make_bench, monkeypatch):
    program.write("catalog.py", "value = 1")
    module = program.load("sim.py", "import catalog\ndef objective(x): return {'x': catalog.value}")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{program.directory}")
    bench = make_bench(exclude_source_files=["catalog.py"])
    assert "'catalog' was not shipped" in bench.failure(bench.attempt(module.objective, x=1)).message


def test_that_a_module_beside_the_function_but_not_at_the_top_is_explained(program, bench, monkeypatch):
    program.write("deep/sibling.py", "value = 1")
    monkeypatch.syspath_prepend(program.directory / "deep")
    module = program.load("deep/sim.py", "import sibling\ndef objective(x): return {'x': sibling.value}")
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert "module 'sibling' is shipped as deep/sibling.py" in failure.message
    assert "import 'deep.sibling', or set source_dir to" in failure.message


def test_that_a_module_that_exists_nowhere_is_just_missing(program, bench):
    module = program.load("sim.py", "def objective(x):\n    import no_such_module_at_all")
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.message.endswith("No module named 'no_such_module_at_all'")


def test_that_a_data_file_that_was_excluded_is_named_with_the_pattern(program, make_bench):
    program.write("setup.json", "{}")
    module = program.load("sim.py", "def objective(x): return {'x': open('setup.json').read()}")
    bench = make_bench(exclude_source_files=[".*json"])
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.EXCEPTION
    assert "'setup.json' was not shipped: setup.json is taken by the exclude pattern '.*json'" in failure.message


def test_that_a_program_without_a_main_guard_is_explained_with_file_and_line(program, bench):
    module = program.load(
        "sim.py",
        """
        import os
        def objective(x): return {"x": x}
        if os.environ.get("SCHEDULER_IMPORTING"):
            from scheduler.errors import MissingMainGuardError
            raise MissingMainGuardError("the scheduler was started")
        """,
    )
    failure = bench.failure(bench.attempt(module.objective, x=1))
    assert failure.cause is Cause.ENVIRONMENT
    assert "sim.py, line 6: the program starts the scheduler while a job is importing it" in failure.message
    assert 'if __name__ == "__main__":' in failure.message


def test_that_all_jobs_of_a_run_get_the_files_as_they_were_when_it_began(program, bench):
    program.write("data.txt", "first")
    module = program.load("sim.py", "def objective(x): return {'text': open('data.txt').read()}")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"text": "first"}
    program.write("data.txt", "second")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"text": "first"}
    bench.runner.close()
    assert bench.result(bench.attempt(module.objective, x=1)) == {"text": "second"}


# -------------------------------------------------------------------------------------------------- limits and slots

WAITING = """
import os, subprocess, sys, time
def wait_for(path, started=None):
    if started: open(started, "w").write(str(os.getpid()))
    while not os.path.exists(path): time.sleep(0.01)
    return {"done": 1}
def with_child(started):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(started + ".new", "w") as file: file.write(str(child.pid))
    os.rename(started + ".new", started)
    child.wait()
def grow():
    hoard = []
    while True:
        hoard.append(b"x" * 10_000_000)
        time.sleep(0.01)
def die(): os.kill(os.getpid(), 9)
def leave(): os._exit(3)
"""


def test_that_a_job_over_its_time_limit_is_ended(program, make_bench, tmp_path):
    module = program.load("sim.py", WAITING)
    bench = make_bench(max_walltime=0.5)
    failure = bench.failure(bench.attempt(module.wait_for, path=str(tmp_path / "never")))
    assert failure.cause is Cause.TIMEOUT
    assert "0.5" in failure.message


def test_that_a_limit_of_the_step_overrides_that_of_the_runner(program, bench, tmp_path):
    module = program.load("sim.py", WAITING)
    attempt = bench.attempt(module.wait_for, path=str(tmp_path / "never"), resources=Resources(walltime_s=0.3))
    assert bench.failure(attempt).cause is Cause.TIMEOUT


def test_that_a_job_over_its_memory_limit_is_ended(program, make_bench):
    module = program.load("sim.py", WAITING)
    bench = make_bench(total_memory=150)
    failure = bench.failure(bench.attempt(module.grow))
    assert failure.cause is Cause.MEMORY
    assert "150" in failure.message


@pytest.mark.parametrize("name", ["die", "leave"])
def test_that_a_job_that_is_torn_away_leaves_the_others_alone(program, bench, name):
    module = program.load("sim.py", WAITING + "\ndef fine(): return {'x': 1}\n")
    dead, alive = bench.run(bench.attempt(getattr(module, name)), bench.attempt(module.fine))
    assert dead.failure.cause is Cause.KILLED
    assert alive == HasSucceeded({"x": 1})


def test_that_a_cancelled_job_ends_with_its_processes(program, bench, tmp_path):
    module = program.load("sim.py", WAITING)
    started = tmp_path / "started"
    attempt = bench.attempt(module.with_child, started=str(started))
    bench.submit(attempt)
    bench.wait(attempt, until=lambda seen: seen == IsRunning())
    grandchild = wait_for_pid(started)
    bench.runner.cancel({attempt.label: attempt.label})
    assert bench.wait(attempt) == [WasCancelled()]
    assert_gone(grandchild)


def test_that_a_job_cancelled_while_it_waits_never_starts(program, make_bench, tmp_path):
    module = program.load("sim.py", WAITING)
    bench = make_bench(config={"slots": 1})
    go = tmp_path / "go"
    first = bench.attempt(module.wait_for, path=str(go))
    second = bench.attempt(module.wait_for, path=str(go), started=str(tmp_path / "second"))
    bench.submit(first, second)
    bench.wait(first, until=lambda seen: seen == IsRunning())
    assert bench.wait(second, until=lambda seen: seen == IsQueued())
    bench.runner.cancel({second.label: second.label})
    assert bench.wait(second) == [WasCancelled()]
    go.touch()
    assert bench.wait(first) == [HasSucceeded({"done": 1})]
    assert not (tmp_path / "second").exists()


def test_that_a_job_takes_as_many_slots_as_it_has_cores_and_is_not_overtaken(program, make_bench, tmp_path):
    module = program.load("sim.py", WAITING)
    bench = make_bench(config={"slots": 2})
    go = [tmp_path / "go0", tmp_path / "go1", tmp_path / "go2"]
    small, big, late = (
        bench.attempt(module.wait_for, path=str(go[index]), resources=Resources(cores=cores))
        for index, cores in enumerate((1, 2, 1))
    )
    bench.submit(small, big, late)
    bench.wait(small, until=lambda seen: seen == IsRunning())
    assert bench.wait(big, late, until=lambda seen: seen == IsQueued())
    go[0].touch()
    bench.wait(big, until=lambda seen: seen == IsRunning())
    assert bench.wait(late, until=lambda seen: seen == IsQueued())
    go[1].touch()
    go[2].touch()
    assert bench.wait(small, big, late) == [HasSucceeded({"done": 1})] * 3


def test_that_a_job_with_more_cores_than_there_are_takes_all_with_a_warning(program, make_bench, caplog):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    bench = make_bench(core_count=64)
    assert bench.result(bench.attempt(module.objective, x=1)) == {"x": 1}
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        "core_count=64 is more than the 2 slots here: each job takes all of them"
    ]


def test_that_a_relative_run_directory_is_understood_from_where_the_program_runs(program, bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    attempt = bench.attempt(module.objective, x=1, directory=Path("my_run/trials/0/sim/None"))
    assert bench.result(attempt) == {"x": 1}
    assert (tmp_path / "my_run/trials/0/sim/None/result.json").exists()


def test_that_the_drivers_interpreter_is_python3_also_where_it_has_another_name(program, bench, tmp_path, monkeypatch):
    interpreter = tmp_path / "bin" / "my-python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nexport STARTED_BY=$0\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    module = program.load("sim.py", "import os\ndef objective(x): return {'by': os.environ['STARTED_BY']}")
    assert bench.result(bench.attempt(module.objective, x=1)) == {"by": str(interpreter)}


def test_that_libraries_get_as_many_threads_as_the_job_has_cores_unless_the_user_says_so(
    program, make_bench, monkeypatch
):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    module = program.load("sim.py", "import os\ndef objective(x): return {'n': os.environ['OMP_NUM_THREADS']}")
    bench = make_bench(core_count=2)
    assert bench.result(bench.attempt(module.objective, x=1)) == {"n": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    bench = make_bench(core_count=2)
    assert bench.result(bench.attempt(module.objective, x=1)) == {"n": "7"}


def test_that_jobs_are_lost_with_their_pilot_and_the_next_one_runs(program, bench, tmp_path):
    module = program.load("sim.py", WAITING + "\ndef parent(): return {'pid': os.getppid()}\n")
    pilot = bench.result(bench.attempt(module.parent))["pid"]
    attempt = bench.attempt(module.wait_for, path=str(tmp_path / "never"))
    bench.submit(attempt)
    bench.wait(attempt, until=lambda seen: seen == IsRunning())
    psutil.Process(pilot).kill()
    (seen,) = bench.wait(attempt)
    assert seen.failure.cause is Cause.LOST
    assert bench.result(bench.attempt(module.parent))["pid"] != pilot


def test_that_closing_ends_the_jobs_and_removes_the_unpacked_files(program, bench, tmp_path):
    module = program.load("sim.py", WAITING)
    started = tmp_path / "started"
    attempt = bench.attempt(module.with_child, started=str(started))
    bench.submit(attempt)
    grandchild = wait_for_pid(started)
    bench.runner.close()
    assert_gone(grandchild)
    left = [path.name for path in (tmp_path / "run" / "sandboxes").iterdir()]
    assert sorted(name.partition("-")[0] for name in left) == ["init", "source"]


def test_that_an_attempt_that_cannot_be_shipped_is_refused_and_the_others_are_taken(program, bench):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    good, bad = bench.attempt(module.objective, x=1), bench.attempt(lambda x: x, x=1)
    answer = bench.submit(good, bad)
    assert answer[good.label] == good.label
    assert isinstance(answer[bad.label], Failure)
    assert answer[bad.label].cause is Cause.SUBMISSION
    assert bench.wait(good) == [HasSucceeded({"x": 1})]


def test_that_a_tarball_that_was_damaged_fails_the_job_and_leaves_no_unpacked_files(program, bench, tmp_path):
    module = program.load("sim.py", "def objective(x): return {'x': x}")
    attempt = bench.attempt(module.objective, x=1)
    tarball = bench.runner._job(attempt).tarball.path
    tarball.write_bytes(tarball.read_bytes()[:50])
    failure = bench.failure(attempt)
    assert failure.cause is Cause.ENVIRONMENT
    assert tarball.name in failure.message
    assert names_in(tmp_path / "run" / "sandboxes") == [tarball.name]


def test_that_many_jobs_that_cannot_start_all_fail(program, bench):
    module = program.load("sim.py", "def objective(names): return {}")
    attempts = [bench.attempt(module.objective, inputs={"names": "user.a.unknown"}) for _ in range(400)]
    assert {type(seen) for seen in bench.run(*attempts)} == {HasFailed}


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def wait_for_pid(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return psutil.Process(int(path.read_text()))


def assert_gone(process):
    _, alive = psutil.wait_procs([process], timeout=10)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
