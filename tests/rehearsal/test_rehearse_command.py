"""`scheduler rehearse` as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.rehearsal.conftest import line_of, program_text

EXAMPLES = Path(__file__).parents[2] / "examples"
TIME_LIMIT_S = 340
pytestmark = pytest.mark.timeout(360)  # each imports Ax at least once, which takes its time on a busy machine


@pytest.fixture
def command(tmp_path):
    """Runs `scheduler rehearse` in a directory, with a temporary directory of its own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def run(*arguments, directory, **environment):
        return subprocess.run(
            [sys.executable, "-m", "scheduler.cli", "rehearse", *arguments],
            cwd=directory,
            env={**os.environ, "TMPDIR": str(temporary), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )

    return run


def test_that_the_example_with_global_parameters_is_sound_and_nothing_is_left_behind(command, tmp_path):
    directory = tmp_path / "examples"
    directory.mkdir()
    shutil.copy(EXAMPLES / "global_parameters.py", directory)

    done = command(
        "--json", "global_parameters.py", directory=directory, PANDA_URL_SSL="https://127.0.0.1:1/server/panda"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [each for each in findings if each["severity"] != "note"] == []
    (used,) = [each for each in findings if each["kind"] == "use" and each["step"] == "simrecoana"]
    assert used["message"].startswith("4 jobs, each at most")
    assert "of 3600 s" in used["message"]
    assert sorted(path.name for path in directory.iterdir()) == ["global_parameters.py"]
    assert not list((tmp_path / "temporary").glob("scheduler-rehearsal-*"))


def test_that_a_broken_program_gives_exit_code_1_with_line_and_remedy_and_keeps_its_logs(command, tmp_path):
    text = program_text("def objective(x):\n    return {'loss': x + float(open('field.txt').read())}",
                        imports="import sys; assert sys.argv[1:] == ['--json', 'one'] or __name__ != '__main__'",
                        runner="exclude_source_files=['field']")  # fmt: skip
    (tmp_path / "program.py").write_text(text)
    kept = tmp_path / "kept"

    done = command("--keep", str(kept), "program.py", "--json", "one", directory=tmp_path)

    assert done.returncode == 1, done.stdout + done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith(f"error (file) program.py:{line_of(text, 'field.txt')}: step 'objective': ")
    assert second.strip().startswith("remedy: ")
    assert done.stdout.splitlines()[-1].startswith("This would fail on the grid: 1 error, 0 warnings.")
    assert "FileNotFoundError" in next(kept.rglob("log.txt")).read_text()


def test_that_ctrl_c_ends_a_rehearsal_and_leaves_neither_files_nor_processes(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "program.py").write_text(program_text("def objective(x):\n    __import__('time').sleep(600)"))
    starter = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    with subprocess.Popen(
        [sys.executable, "-c", starter + "from scheduler.cli import main; main()", "rehearse", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: any(temporary.glob("*/run/trials/0/objective/None/log.txt")), "the job to start")
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(TIME_LIMIT_S)
        finally:
            process.kill()

    assert code == 1
    wait_until(lambda: not processes_that_name(temporary), "its processes to end")
    assert not list(temporary.glob("scheduler-rehearsal-*"))


def processes_that_name(directory):
    """The command lines of live processes with this directory in them."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(directory) in line]


def wait_until(condition, what):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("arguments", [("nowhere.py",), ("--keep", ".", "program.py")])
def test_that_what_cannot_be_rehearsed_is_an_error_of_one_line(command, tmp_path, arguments):
    (tmp_path / "program.py").write_text("")

    done = command(*arguments, directory=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
