from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.store.runs import make_run

from scheduler.cli import main
from scheduler.run_directory import DATABASE, RunDirectory

RELEASED = Path(__file__).parents[1] / "store" / "released"


@pytest.fixture
def run(tmp_path):
    """A finished run of four trials: 1 failed, 2 was tried again; trial 0 and 1 have logs."""
    made, _ = make_run(tmp_path / "runs" / "exp")
    for trial, step, point, text in [(0, "end", "None", "all fine\n"), (1, "sim", "p_2", "one\ntwo\nno beam\n")]:
        directory = made.path / "trials" / str(trial) / step / point
        directory.mkdir(parents=True)
        (directory / "log.txt").write_text(text)
    yield made
    made.close()


def call(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_that_every_command_has_help_and_unknown_ones_are_usage_errors():
    for command in main.commands:
        shown = call(command, "--help")
        assert shown.exit_code == 0
        assert "\\b" not in shown.output, "examples stand on lines of their own"
    assert call("dance").exit_code == 2


def test_that_status_is_one_screen_with_everything(run):
    output = call("status", run.path).output

    assert "3 completed, 1 failed, 0 under way" in output
    assert "not running" in output
    assert "best: objective 3 in trial 0" in output
    assert "1 jobs failed by exception, for example: ValueError: no beam" in output
    assert [line.split() for line in output.splitlines() if line.split()[0] in {"sim", "end"}] == [
        ["sim", "0", "0", "6", "1", "1"],
        ["end", "0", "0", "3", "0", "1"],
    ]


def test_that_status_and_why_show_where_jobs_can_be_looked_at_and_where_results_come_from(run):
    with closing(sqlite3.connect(run.store.path)) as connection, connection:
        connection.execute(
            "UPDATE jobs SET state = 'running', link = 'https://tasks/7' WHERE trial = 0 AND step = 'sim'"
        )
        connection.execute("UPDATE jobs SET source = 'the cache' WHERE trial = 0 AND step = 'end'")

    assert "https://tasks/7" in call("status", run.path).output
    output = call("why", run.path, 0).output
    assert "step 'sim', point p_1 is running: https://tasks/7" in output
    assert "step 'end' has its result from the cache" in output


def test_that_a_run_of_the_first_schema_can_be_looked_at_without_being_changed(tmp_path):
    shutil.copy(RELEASED / "schema-1.db", tmp_path / DATABASE)

    assert call("status", tmp_path).exit_code == 0
    assert call("why", tmp_path, 1).exit_code == 0
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_that_status_shows_who_works_on_the_run(run):
    run.hold(print, print)

    assert f"running (process {os.getpid()} on" in call("status", run.path).output


def test_that_why_tells_the_first_true_error_with_step_point_log_and_tail(run):
    output = call("why", run.path, 1).output

    assert "trial 1 failed in step 'sim', point p_2, attempt 1, by exception:" in output
    assert "ValueError: no beam" in output
    assert "log.txt" in output
    assert "  | no beam" in output


def test_that_why_of_a_good_trial_says_so(run):
    assert "trial 0 did not fail: it completed with" in call("why", run.path, 0).output


def test_that_an_unknown_trial_is_an_error_with_the_numbers_there_are(run):
    result = call("why", run.path, 17)

    assert result.exit_code == 1
    assert "there is no trial 17; the run has trials 0 to 3" in result.output


def test_that_logs_are_printed_under_their_names(run):
    output = call("logs", run.path, 1, "sim").output

    assert output.startswith("==> ")
    assert output.endswith("one\ntwo\nno beam\n")
    assert call("logs", run.path, 1, "end").exit_code == 1


def test_that_following_the_logs_of_a_trial_that_is_over_ends(run):
    assert "all fine" in call("logs", run.path, 0, "--follow").output


def test_that_events_are_lines_or_json_and_of_one_trial_if_wanted(run):
    lines = call("events", run.path).output.splitlines()
    objects = [json.loads(line) for line in call("events", run.path, "--json", "--trial", 2).output.splitlines()]

    assert any("trial 2, step 'sim', point p_1: RetryScheduled" in line for line in lines)
    assert objects[0]["kind"] == "TrialStarted"
    assert {o["job"][0] if "job" in o else o["trial"] for o in objects} == {2}
    assert len(objects) < len(lines)


def test_that_a_long_value_is_cut_in_a_line_and_whole_in_json(run):
    long = "x" * 5000
    with run.store._transaction() as connection:
        connection.execute(
            "UPDATE events SET body = json_set(body, '$.origin', ?) WHERE kind = 'TrialStarted'", (long,)
        )

    line = next(line for line in call("events", run.path).output.splitlines() if "TrialStarted" in line)

    assert "--json" in line
    assert len(line) < 600
    assert long in call("events", run.path, "--json").output


def test_that_followed_events_come_as_they_happen(run):
    command = [sys.executable, "-m", "scheduler.cli", "events", str(run.path), "--follow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        count = run.store.query("SELECT count(*) FROM events")[0][0]
        for _ in range(count):
            assert process.stdout.readline()
        other = RunDirectory.open(run.path)
        with other.store._transaction() as connection:
            connection.execute(
                "INSERT INTO events SELECT id + 1, at, trial, kind, body FROM events WHERE id = ?", (count,)
            )
        other.close()
        assert f"{count + 1} " in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_that_export_has_a_row_for_each_trial(run, tmp_path):
    rows = list(csv.DictReader(io.StringIO(call("export", run.path).output)))
    objects = json.loads(call("export", run.path, "--format", "json").output)
    file = tmp_path / "trials.parquet"
    call("export", run.path, "--format", "parquet", "-o", file)

    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["status"] for row in rows] == ["completed", "failed", "completed", "completed"]
    assert rows[0]["objective"] == "3.0"
    assert rows[0]["note"] == "fine"
    assert float(rows[0]["job_s"]) == 30.0
    assert "no beam" in rows[1]["failure"]
    assert objects[2]["x"] == 2.0
    import pyarrow.parquet as pq

    assert pq.read_table(file).column("objective").to_pylist() == [3.0, None, 7.0, 9.0]


def test_that_parquet_wants_a_file(run):
    result = CliRunner().invoke(main, ["export", str(run.path), "--format", "parquet"])

    assert result.exit_code == 1
    assert "name a file with --output" in result.output


def test_that_list_shows_all_runs_below_a_directory(run):
    make_run(run.path.parent / "exp-2", trials=1)[0].close()

    output = call("list", run.path.parent).output

    names = [line.split()[0] for line in output.splitlines()]
    assert names == ["run", "exp", "exp-2"]
    assert call("list", run.path).exit_code == 1


def test_that_verify_counts_events_or_names_problems(run):
    assert "agree with the tables" in call("verify", run.path).output

    run.store.query("UPDATE trials SET state = 'completed' WHERE trial = 1")
    result = call("verify", run.path)
    assert result.exit_code == 1
    assert "trial 1: the table says completed, the events failed" in result.output


def test_that_there_is_nothing_to_cancel_when_nobody_works_on_the_run(run):
    result = call("cancel", run.path)

    assert result.exit_code == 1
    assert "nobody works on the run" in result.output


def test_that_a_finished_trial_cannot_be_cancelled(run):
    run.hold(print, print)

    assert "trial 0 is over already" in call("cancel", run.path, "--trial", 0).output


def test_that_resume_refuses_a_run_that_is_going_on(run):
    run.hold(print, print)

    assert f"worked on by process {os.getpid()}" in call("resume", run.path).output


def test_that_resume_needs_the_program_file(run):
    run.store.note("program", "/nowhere/program.py")

    result = call("resume", run.path)

    assert result.exit_code == 1
    assert "/nowhere/program.py" in result.output
    assert "config['resume'] = True" in result.output


def test_that_resume_starts_the_recorded_program_with_arguments_directory_and_run(run, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['SCHEDULER_RESUME'])")
    for name, value in [("program", str(program)), ("arguments", ["--n", "3"]), ("working_directory", str(tmp_path))]:
        run.store.note(name, value)

    process = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "resume", str(run.path)], capture_output=True, text=True, check=True
    )

    assert process.stdout == f"['--n', '3'] {tmp_path} {run.path}\n"


def test_that_a_directory_without_a_run_is_a_clear_error(tmp_path):
    for command in ("status", "verify", "events"):
        result = call(command, tmp_path)
        assert result.exit_code == 1
        assert "is no run directory" in result.output


def test_that_status_does_not_load_ax(run):
    script = (
        "import sys\n"
        "from scheduler.cli import main\n"
        f"main(['status', {str(run.path)!r}], standalone_mode=False)\n"
        "sys.exit(sorted({'ax', 'torch', 'pandas', 'numpy'} & set(sys.modules)) or 0)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert process.returncode == 0, process.stderr
