"""The grid that the live tests run on, proven with the existing client library and plain HTTP."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest
from tests.live.broker import why_no_broker
from tests.live.environments import ROOT
from tests.live.grid import Grid, Setup
from tests.live.patience import eventually
from tests.live.rucio_server import RucioServer

pytestmark = pytest.mark.timeout(600)  # the first run makes virtual environments


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of an answer."""
    request = urllib.request.Request(url, body, headers or {})  # noqa: S310  # http on this machine
    try:
        with urllib.request.urlopen(request, timeout=30.0) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def relay(grid: Grid, body: bytes) -> tuple[int, str]:
    return ask(f"{grid.environment['PANDA_URL_SSL']}/relay_idds_command", body, {"Content-Type": "application/json"})


def api(grid: Grid, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    url = grid.environment["PANDA_URL_SSL"].removesuffix("/server/panda") + f"/api/v1/{path}"
    content = None if body is None else json.dumps(body).encode()
    status, text = ask(url, content, {"Content-Type": "application/json"})
    assert status == 200, text
    return json.loads(text)


@pytest.mark.parametrize(("kind", "service"), [("http_grid", "panda"), ("broker_grid", "idds")])
def test_that_a_function_comes_back_with_its_result(request, open_session, task_of, kind, service):
    grid = request.getfixturevalue(kind)
    session = open_session(grid, service)

    transform_id = session.submit("add", a=1, b=2)

    assert session.ask("wait", work=0) == {"sum": 3}
    task = task_of(grid, session, transform_id, "done")
    statuses = [status for _, status in task["history"]]
    assert statuses == ["registered", "defined", "ready", "running", "done"]
    assert task["parameters"]["userName"] == "alice"
    eventually(lambda: session.ask("status", work=0) == "Finished", "the transform to follow the task")


@pytest.mark.long
def test_that_the_unmodified_payload_program_does_the_same(tmp_path, open_session):
    with Grid(tmp_path / "grid", Setup(has_broker=why_no_broker() is None, tests_channel=True)) as full_grid:
        session = open_session(full_grid)
        session.submit("add", a=20, b=3)

        result = session.ask("wait", work=0)
        log = full_grid.payload_log(full_grid.tasks()[0]["task_id"])

    assert result == {"sum": 23}
    assert "pre_run asyncresult test is_ok: True" in log


def test_that_a_raising_function_fails_its_task_and_sends_its_text(http_grid, open_session, task_of):
    session = open_session(http_grid)

    transform_id = session.submit("refuse", a=13)

    task = task_of(http_grid, session, transform_id, "failed")
    (failure,) = task["failures"]
    assert "payload exit code 255" in failure
    is_ok, messages = session.ask("messages", work=0)
    assert is_ok
    assert [message["body"]["ret"][:3] for message in messages] == [[False, None, "13 is not wanted here"]]
    eventually(lambda: session.ask("status", work=0) == "Failed", "the transform to follow the task")


def test_that_a_job_can_end_well_without_a_result(http_grid, open_session, task_of):
    session = open_session(http_grid)

    transform_id = session.submit("vanish")

    task_of(http_grid, session, transform_id, "done")
    assert session.ask("messages", work=0) == [True, []]


def test_that_a_killed_task_is_aborted_a_moment_later(http_grid, open_session, task_of):
    session = open_session(http_grid)
    transform_id = session.submit("linger", seconds=600)
    task_id = task_of(http_grid, session, transform_id, "running")["task_id"]

    status, (is_registered, _) = session.ask("kill", task=task_id)

    assert (status, is_registered) == (0, True)
    assert task_of(http_grid, session, transform_id)["status"] == "running"
    task = task_of(http_grid, session, transform_id, "aborted")
    assert [status for _, status in task["history"]][-2:] == ["aborting", "aborted"]
    assert session.ask("messages", work=0) == [True, []]


def test_that_events_make_jobs_and_a_child_reads_what_its_parent_wrote(http_grid, open_session, task_of):
    session = open_session(http_grid)
    dataset = f"user.alice.{uuid.uuid4().hex[:8]}"
    writing = {"output_dataset_name": f"{dataset}/", "output_file_name": "my_test.txt"}

    parent = session.submit("write", text="hello", options={**writing, "num_events": 5, "num_events_per_job": 2})
    parent_task = task_of(http_grid, session, parent, "done")
    reading = {"input_datasets": {"files": f"{dataset}/"}, "parent_transform_id": parent}
    child = session.submit("read", options=reading)

    expected = [f"{dataset}_{number:06d}.my_test.txt" for number in (1, 2, 3)]
    assert [path.name for path in http_grid.files(dataset)] == expected
    assert (parent_task["parameters"]["nEvents"], parent_task["attempts"]) == (5, 3)
    assert session.ask("wait", work=1) == dict.fromkeys(expected, "hello")
    task_of(http_grid, session, child, "done")


@pytest.mark.long
def test_that_files_travel_through_a_real_rucio(tmp_path, open_session, task_of):
    dataset = f"user.alice.{uuid.uuid4().hex[:8]}"
    with RucioServer(tmp_path / "rucio") as rucio:
        rucio.add_account("alice")
        with Grid(tmp_path / "grid", rucio=rucio) as grid:
            session = open_session(grid)
            writing = {"output_dataset_name": f"{dataset}/", "output_file_name": "my_test.txt"}
            parent = session.submit(
                "write", text="hello", options={**writing, "num_events": 2, "num_events_per_job": 1}
            )
            parent_task = task_of(grid, session, parent, "done", "failed", "broken")
            session.submit("read", options={"input_datasets": {"files": f"{dataset}/"}})

            read = session.ask("wait", work=1)

        stored = [path.name for path in rucio.storage.rglob("*.my_test.txt")]

    assert parent_task["status"] == "done", parent_task
    assert read == {f"{dataset}_{number:06d}.my_test.txt": "hello" for number in (1, 2)}
    assert sorted(stored) == sorted(read)


def test_that_an_unknown_input_dataset_breaks_the_task(http_grid, open_session, task_of):
    session = open_session(http_grid)

    transform_id = session.submit("read", options={"input_datasets": {"files": "user.alice.nowhere/"}})

    task_of(http_grid, session, transform_id, "broken")


def test_that_tasks_that_nobody_knows_are_refused_with_status_200(http_grid):
    answers = [api(http_grid, "task/get_status?task_id=7"), api(http_grid, "task/kill", {"task_id": 7})]

    assert answers == [{"success": False, "message": "task not found", "data": None}] * 2


def test_that_unknown_fields_are_refused(http_grid):
    answer = api(http_grid, "task/kill", {"task_id": 7, "soft": True})

    assert not answer["success"]
    assert "['soft', 'task_id']" in str(answer["message"])


def test_that_the_relay_takes_compressed_commands_only(http_grid):
    command = json.dumps({"command_name": "ping", "manager": True}).encode()

    assert relay(http_grid, gzip.compress(command)) == (200, '[true, {"Status": "OK"}]')
    assert relay(http_grid, command)[0] == 500
    assert relay(http_grid, gzip.compress(b'{"command_name": "ping", "unheard_of": 1}'))[0] == 500


def test_that_results_over_stomp_survive_an_absence_of_idds_and_panda(broker_grid, open_session):
    session = open_session(broker_grid)
    session.submit("linger", seconds=4)
    eventually(broker_grid.tasks, "the task")
    task_id = broker_grid.tasks()[-1]["task_id"]
    eventually(lambda: "start to run function" in broker_grid.payload_log(task_id), "the function to run")

    broker_grid.stop_idds()
    broker_grid.stop_panda()
    try:
        eventually(lambda: broker_grid.tasks()[-1]["status"] == "done", "the job to end")
    finally:
        broker_grid.start_panda()
        broker_grid.start_idds()

    assert session.ask("wait", work=0) == "woke up"
    eventually(lambda: session.ask("status", work=0) == "Finished", "iDDS to remember and to learn of the end")


def test_that_a_young_task_is_not_known_yet_and_a_foreign_one_cannot_be_killed(http_grid):
    named = dict.fromkeys(("taskName", "vo", "prodSourceLabel", "taskType", "processingType", "transPath"), "test")
    parameters = {**named, "userName": "iDDS", "jobParameters": [], "pfnList": ["pseudo_file"]}

    task_id = api(http_grid, "task/submit", {"task_parameters": parameters, "parent_tid": None})["data"]
    status = api(http_grid, f"task/get_status?task_id={task_id}")
    kill = api(http_grid, "task/kill", {"task_id": task_id})

    assert (status["success"], status["data"]) == (False, None)
    assert (kill["success"], kill["message"]) == (False, "not the task owner or no production role")


def test_that_nothing_outlives_a_grid_that_was_killed(tmp_path):
    work = tmp_path / "grid"
    command = [sys.executable, "-m", "tests.live.grid", "--work", str(work)]
    with (tmp_path / "grid.log").open("w") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as grid:
        eventually((work / "environment.sh").exists, "the grid to be there", within_s=120.0)
        family = psutil.Process(grid.pid).children(recursive=True)

        grid.send_signal(signal.SIGKILL)

    assert len(family) >= 4, "two servers with a keeper each"
    _, alive = psutil.wait_procs(family, timeout=30.0)
    assert alive == []
    assert Path(work / "idds" / "idds.db").exists()
