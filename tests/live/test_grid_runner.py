"""PanDAiDDSRunner on the real iDDS server: results, failures, cancellation, restarts, outages, datasets, cost."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live.grid import Grid
from tests.panda.identity_provider import id_token

pytestmark = pytest.mark.timeout(600)  # the first run makes virtual environments
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 150.0
OUTAGE_S = 30.0


class Driver:
    """A program with a runner, in a process of its own."""

    def __init__(self, grid: Grid, directory: Path, *, environment: dict[str, str] | None = None, **arguments: Any):
        self.log = directory / f"driver-{uuid.uuid4().hex[:6]}.log"
        directory.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [grid.python, PROGRAMS / "drive.py"],
                cwd=directory,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(directory),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **grid.environment,
                    **(environment or {}),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.ask("open", **{"service": "panda", "name": "user.alice.test", **arguments})

    def ask(self, what: str, **arguments: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the program ended: {self.log.read_text()[-4000:]}"
        return json.loads(answer)

    def submit(self, *attempts: dict[str, Any]) -> dict[str, str]:
        ids = self.ask("submit", attempts=list(attempts))
        assert set(ids) == {each["label"] for each in attempts}, ids
        return dict(ids)

    def wait(self, ids: dict[str, str], until: Callable[[list[Any]], bool] | None = None) -> dict[str, list[Any]]:
        """Poll like the engine, until all have ended, or fulfil the condition."""
        is_reached = until or (lambda seen: seen[0] in {"succeeded", "failed", "WasCancelled"})
        reached: dict[str, list[Any]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(reached) < len(ids):
            seen = self.ask("poll", attempts={label: id_ for label, id_ in ids.items() if label not in reached})
            if "unavailable" not in seen:
                reached.update((label, each) for label, each in seen.items() if is_reached(each))
            assert time.monotonic() < deadline, f"still {seen}; {self.log.read_text()[-4000:]}"
            time.sleep(0.2)
        return reached

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["broker_grid", pytest.param("http_grid", marks=pytest.mark.long)])
def grid(request: pytest.FixtureRequest) -> Grid:
    """Each kind of grid in turn: results over HTTP, and over STOMP."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts programs; they are killed after the test."""
    drivers: list[Driver] = []

    def start(grid: Grid, **arguments: Any) -> Driver:
        drivers.append(Driver(grid, tmp_path / "program", **arguments))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()


@pytest.fixture
def attempt() -> Callable[..., dict[str, Any]]:
    """Makes attempts of one run."""
    run = uuid.uuid4().hex[:8]
    count = iter(range(10**6))

    def make(function: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        label = f"{run}-{next(count)}-{function}-None"
        return {"label": label, "function": function, "arguments": arguments or {}, **more}

    return make


def tasks_of(grid: Grid, driver_ids: dict[str, str]) -> list[dict[str, Any]]:
    endings = tuple(f"_{id_.split('/')[0].replace('.', '_')}" for id_ in driver_ids.values())
    return [task for task in grid.tasks() if task["parameters"]["taskName"].endswith(endings)]


@pytest.mark.parametrize("service", ["panda", "idds"])
def test_that_results_and_exceptions_come_back(grid, drive, attempt, service):
    driver = drive(grid, service=service)
    good, mapping, bad = (
        attempt("square", {"x": 3}),
        attempt("successor", {"x": 4}, takes_mapping=True),
        attempt("refuse", {"x": 2}),
    )
    ids = driver.submit(good, mapping, bad)

    seen = driver.wait(ids)

    assert seen[good["label"]] == ["succeeded", {"y": 9}]
    assert seen[mapping["label"]] == ["succeeded", {"y": 5}]
    kind, cause, message = seen[bad["label"]]
    assert (kind, cause) == ("failed", "exception")
    assert message.startswith("no solution at 2 (http://monitor.invalid/task/")
    figures = driver.ask("figures")
    assert figures["logging is as it was"]


def test_that_the_task_has_what_was_asked_for_and_no_secret(http_grid, drive, attempt):
    secrets = {"OIDC_AUTH_ID_TOKEN": "secret-1", "IDDS_OIDC_TOKEN": "secret-2", "PANDA_AUTH_ID_TOKEN": "secret-3"}
    driver = drive(
        http_grid,
        environment=secrets,
        core_count=2,
        total_memory=3000,
        max_walltime=777,
        queue="Q7",
        cloud="EU",
        vo="eic",
    )
    ids = driver.submit(attempt("environment", resources={"walltime_s": 55.4}))
    (seen,) = driver.wait(ids).values()

    task = tasks_of(http_grid, ids)[0]
    parameters = task["parameters"]
    wanted = {"coreCount": 2, "ramCount": 1500, "maxWalltime": 55, "site": "Q7", "cloud": "EU", "vo": "eic"}
    assert {name: parameters[name] for name in wanted} == wanted
    assert parameters["userName"] == "alice"
    assert parameters["maxAttempt"] == 1
    text = json.dumps(task) + seen[1]["text"]
    text += "".join(map(decoded, text.replace('"', " ").replace("\\", " ").split()))
    assert '"_cloud": "EU"' in text  # the context is in it, and readable for everybody
    assert "secret-" not in text


def test_that_a_cancelled_job_is_killed_and_the_kill_confirmed(grid, drive, attempt):
    driver = drive(grid)
    ids = driver.submit(attempt("sleep", {"seconds": 300}))
    driver.wait(ids, until=lambda seen: seen == ["IsRunning"])

    driver.ask("cancel", attempts=ids)

    assert list(driver.wait(ids).values()) == [["WasCancelled"]]
    assert "aborted" in {task["status"] for task in tasks_of(grid, ids)}


@pytest.mark.long
def test_that_a_job_that_ends_well_without_a_word_is_lost_after_a_grace_time(http_grid, drive, attempt):
    driver = drive(http_grid)
    ids = driver.submit(attempt("vanish", {"x": 1}))
    (seen,) = driver.wait(ids).values()
    assert seen[:2] == ["failed", "lost"]
    assert "no result of it arrived" in seen[2]


@pytest.mark.long
def test_that_a_job_cancelled_before_it_has_a_task_is_killed_when_it_has_one(http_grid, drive, attempt):
    driver = drive(http_grid)
    ids = driver.submit(attempt("sleep", {"seconds": 300}))
    driver.ask("cancel", attempts=ids)
    assert list(driver.wait(ids).values()) == [["WasCancelled"]]


def test_that_a_killed_program_finds_its_jobs_and_what_they_returned_meanwhile(http_grid, drive, attempt):
    first = drive(http_grid)
    quick, slow, raising = attempt("square", {"x": 5}), attempt("sleep", {"seconds": 8}), attempt("refuse", {"x": 1})
    ids = first.submit(quick, slow, raising)
    first.kill()
    time.sleep(5.0)  # the quick ones are done while nobody listens

    second = drive(http_grid)
    found = second.ask("find", labels=[*ids, "another-run-0"])

    assert found == ids
    seen = second.wait(found)
    assert seen[quick["label"]] == ["succeeded", {"y": 25}]
    assert seen[slow["label"]] == ["succeeded", {"y": 8}]
    assert seen[raising["label"]][:2] == ["failed", "exception"]
    # By name: under load iDDS submits a work twice now and then.
    assert len({task["parameters"]["taskName"] for task in tasks_of(http_grid, ids)}) == 3


def test_that_a_missing_token_is_an_outage_with_instructions_and_nobody_is_asked(http_grid, drive, attempt):
    driver = drive(http_grid, environment={"PANDA_AUTH": "oidc", "PANDA_AUTH_VO": "EIC"})
    answer = driver.ask("submit", attempts=[attempt("square", {"x": 1})])
    assert "run `scheduler login` in another terminal" in answer["unavailable"]


def test_that_a_run_whose_token_has_expired_goes_on_when_there_is_a_new_one(http_grid, drive, attempt, tmp_path):
    file = tmp_path / ".token"
    file.write_text(json.dumps({"id_token": id_token(lives_s=7200)}))
    oidc = {"PANDA_AUTH": "oidc", "PANDA_AUTH_VO": "EIC", "PANDA_CONFIG_ROOT": str(tmp_path)}
    driver = drive(http_grid, environment=oidc)
    ids = driver.submit(attempt("square", {"x": 3}))
    file.write_text(json.dumps({"id_token": id_token(lives_s=-5)}))
    assert "run `scheduler login`" in driver.ask("submit", attempts=[attempt("square", {"x": 1})])["unavailable"]
    time.sleep(3.0)  # longer than the pause between two looks
    assert "run `scheduler login`" in driver.ask("poll", attempts=ids).get("unavailable", "")

    file.write_text(json.dumps({"id_token": id_token(lives_s=7200)}))

    assert list(driver.wait(ids).values()) == [["succeeded", {"y": 9}]]


def test_that_a_dataset_is_found_under_its_name_and_read_by_the_next_job(http_grid, drive, attempt):
    driver = drive(http_grid)
    dataset = f"user.alice.{uuid.uuid4().hex[:8]}.ds"
    output = {"dataset": dataset, "file": "out.txt", "slices": 2, "num_events": 3, "num_events_per_job": 2}
    producer = driver.submit(attempt("produce", {"x": 7}, output=output))
    assert list(driver.wait(producer).values()) == [["succeeded", {"y": 7}]]
    task = tasks_of(http_grid, producer)[0]
    assert (task["parameters"]["nEvents"], task["parameters"]["nEventsPerJob"]) == (3, 2)
    assert [path.name for path in http_grid.files(dataset)] == [f"{dataset}_{n:06d}.out.txt" for n in (1, 2)]

    consumer = driver.submit(attempt("consume", inputs={"names": f"{dataset}/"}))
    assert list(driver.wait(consumer).values()) == [["succeeded", {"y": 2, "text": "made of 7\nmade of 7\n"}]]


def test_that_a_follower_is_submitted_at_once_and_held_back_by_panda_until_the_dataset_is_there(
    http_grid, drive, attempt
):
    driver = drive(http_grid)
    dataset = f"user.alice.{uuid.uuid4().hex[:8]}.ds"
    output = {"dataset": dataset, "file": "out.txt", "slices": 2, "num_events": 2, "num_events_per_job": 1}
    parent = driver.submit(attempt("produce", {"x": 7}, output=output, returns_result=False))
    (parent_id,) = parent.values()

    child = driver.submit(attempt("consume", inputs={"names": f"{dataset}/"}, follows=parent_id))

    assert list(driver.wait(child).values()) == [["succeeded", {"y": 2, "text": "made of 7\nmade of 7\n"}]]
    assert [kind for kind, *_ in driver.wait(parent).values()] == ["succeeded"]
    consumer = tasks_of(http_grid, child)[0]  # under load iDDS submits a work twice now and then
    (producer,) = (task for task in tasks_of(http_grid, parent) if task["task_id"] == consumer["parent_id"])
    assert began(consumer, "pending") < began(producer, "done") <= began(consumer, "ready")


def began(task: dict[str, Any], status: str) -> float:
    """When a task first had a status."""
    return next(at for at, each in task["history"] if each == status)


@pytest.mark.long
def test_that_found_producers_still_wait_for_their_dataset(http_grid, drive, attempt):
    driver = drive(http_grid)
    output = {"dataset": f"user.alice.{uuid.uuid4().hex[:8]}", "file": "out.txt", "slices": 3}
    ids = driver.submit(attempt("produce", {"x": 7}, output={**output, "num_events": 3, "num_events_per_job": 1}))
    assert driver.ask("find", labels=list(ids)) == ids
    assert next(iter(ids.values())).endswith("/3")
    driver.wait(ids)


@pytest.mark.long
@pytest.mark.parametrize("server", ["idds", "panda"])
def test_that_an_outage_is_no_news_and_jobs_go_on_after_it(http_grid, drive, attempt, server):
    driver = drive(http_grid)
    ids = driver.submit(attempt("sleep", {"seconds": OUTAGE_S + 15}))
    driver.wait(ids, until=lambda seen: seen == ["IsRunning"])
    answers = []
    getattr(http_grid, f"stop_{server}")()
    # From another thread: the relay of PanDA tries for up to half a minute before it says that iDDS is away.
    back = threading.Timer(OUTAGE_S, getattr(http_grid, f"start_{server}"))
    back.start()
    try:
        while back.is_alive():
            answers.append(driver.ask("poll", attempts=ids))
            time.sleep(0.5)
    finally:
        back.join()
    assert server == "idds" or any("unavailable" in answer for answer in answers)
    assert not any(seen[0] == "failed" for answer in answers for seen in answer.values() if isinstance(seen, list))

    assert list(driver.wait(ids).values()) == [["succeeded", {"y": OUTAGE_S + 15}]]


@pytest.mark.long
def test_that_a_lost_broker_is_replaced_by_http_and_connected_again(broker_grid, drive, attempt):
    driver = drive(broker_grid)
    driver.wait(driver.submit(attempt("square", {"x": 1})))
    broker_grid.stop_broker()
    back_at = time.monotonic() + OUTAGE_S
    try:
        ids = driver.submit(attempt("square", {"x": 2}))
        assert list(driver.wait(ids).values()) == [["succeeded", {"y": 4}]]
        time.sleep(max(0.0, back_at - time.monotonic()))
    finally:
        broker_grid.start_broker()
    ids = driver.submit(attempt("square", {"x": 3}))
    assert list(driver.wait(ids).values()) == [["succeeded", {"y": 9}]]


def test_that_many_jobs_cost_few_requests_threads_and_connections(broker_grid, drive, attempt):
    driver = drive(broker_grid)
    driver.ask("find", labels=["none-0"])  # the packages are imported
    before, requests = driver.ask("figures"), len(relayed(broker_grid))
    attempts = [attempt("square", {"x": x}) for x in range(20)]

    seen = driver.wait(driver.submit(*attempts))

    after = driver.ask("figures")
    assert [seen[each["label"]][1]["y"] for each in attempts] == [x * x for x in range(20)]
    assert after["threads"] <= 10
    assert after["connections"] <= 2
    assert (after["cpu_s"] - before["cpu_s"]) / 20 < 0.2  # on a loaded machine; a few milliseconds on an idle one
    assert (len(relayed(broker_grid)) - requests) / 20 <= 3
    driver.ask("close")
    assert driver.ask("figures")["connections"] == 0


def decoded(word: str) -> str:
    try:
        return base64.b64decode(word, validate=True).decode()
    except ValueError:
        return ""


def relayed(grid: Grid) -> list[dict[str, Any]]:
    """What clients asked of iDDS through PanDA."""
    return [each for each in grid.requests() if each["path"].endswith("relay_idds_command")]
