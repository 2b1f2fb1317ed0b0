from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tests.store.runs import WORKFLOW, make_run

import scheduler.store as store_module
from scheduler.core.events import TrialStarted
from scheduler.core.machine import ExperimentState
from scheduler.errors import RunLockedError, StoreError
from scheduler.run_directory import DATABASE, RunDirectory
from scheduler.run_view import RunView
from scheduler.store import Lease, Store

RELEASED = Path(__file__).parent / "released"


@pytest.fixture
def run(tmp_path):
    made, _ = make_run(tmp_path / "run")
    yield made
    made.close()


def replay(store):
    state = ExperimentState(WORKFLOW)
    for _, event in store.events():
        state.apply(event)
    return state


def test_that_what_was_applied_comes_back_from_the_file(tmp_path):
    run, engine = make_run(tmp_path / "run")
    run.close()

    with closing(Store.open(tmp_path / "run" / DATABASE)) as store:
        assert replay(store).trials == engine.state.trials


def test_that_a_sound_run_verifies(run):
    assert list(RunView(run.path).problems()) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE jobs SET state = 'completed' WHERE trial = 1 AND step = 'sim'", "trial 1, step 'sim'"),
        ("DELETE FROM jobs WHERE trial = 0 AND step = 'end'", "trial 0, step 'end' is missing in the table"),
        (
            "UPDATE trials SET state = 'completed' WHERE trial = 1",
            "trial 1: the table says completed, the events failed",
        ),
        ("UPDATE trials SET result = '{\"objective\": 0.0}' WHERE trial = 0", "trial 0: the result in the table"),
        ("DELETE FROM trials WHERE trial = 3", "trial 3 is in the events only"),
        (
            "INSERT INTO jobs VALUES (9, 'sim', '[]', 'failed', 1, '', '', NULL, NULL, NULL, NULL, NULL, '', '')",
            "table only",
        ),
    ],
)
def test_that_verify_finds_what_was_tampered_with(run, damage, problem):
    with closing(sqlite3.connect(run.store.path)) as connection, connection:
        connection.execute(damage)

    assert any(problem in line for line in RunView(run.path).problems())


def test_that_a_commit_is_whole_or_not_at_all(tmp_path):
    run = RunDirectory.create("exp", tmp_path)
    state = ExperimentState(WORKFLOW)
    event = TrialStarted(0, {"x": 1.0}, 0.0)
    state.apply(event)
    run.store._connection.execute("CREATE TRIGGER t BEFORE INSERT ON trials BEGIN SELECT RAISE(ABORT, 'no'); END")

    run.append(event, state, "the optimizer's state")

    with pytest.raises(StoreError):
        run.commit()

    assert list(run.store.events()) == []
    assert run.store.snapshot() is None


def test_that_a_full_disk_stops_the_run_with_a_clear_error_and_no_corruption(tmp_path):
    run = RunDirectory.create("exp", tmp_path)
    pages = run.store.query("PRAGMA page_count")[0][0]
    run.store.query(f"PRAGMA max_page_count = {pages + 3}")
    state = ExperimentState(WORKFLOW)

    def fill():
        for index in range(10_000):
            event = TrialStarted(index, {"x": float(index)}, 0.0)
            state.apply(event)
            run.append(event, state, None)
            run.commit()

    with pytest.raises(StoreError, match="the disk is full: make room and resume"):
        fill()

    assert run.store.query("PRAGMA integrity_check") == [("ok",)]
    recorded = [event.trial for _, event in run.store.events()]
    assert recorded == list(range(len(recorded)))
    assert len(recorded) == run.store.query("SELECT count(*) FROM trials")[0][0]


def test_that_the_last_snapshot_is_kept_with_the_event_it_belongs_to(run):
    number, text = run.store.snapshot()

    assert text
    last = [number for number, _ in run.store.events()][-1]
    assert 0 < number <= last


def test_that_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is no run directory"):
        Store.open(tmp_path / DATABASE)


def test_that_a_run_of_a_newer_release_is_refused(run):
    run.store.query("PRAGMA user_version = 99")

    with pytest.raises(StoreError, match="schema version 99, this release reads up to"):
        Store.open(run.store.path)


def test_that_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / DATABASE).write_text("no database at all, but long enough to be looked at as one" * 30)

    with pytest.raises(StoreError, match="the file is damaged"):
        Store.open(tmp_path / DATABASE)


def test_that_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(StoreError, match="make the run directory writable"):
        Store.create(tmp_path / "missing" / DATABASE, {})


@pytest.mark.parametrize("database", sorted(RELEASED.glob("*.db")), ids=lambda path: path.name)
def test_that_runs_of_every_released_schema_can_be_read_and_continued(database, tmp_path):
    shutil.copy(database, tmp_path / DATABASE)

    with closing(Store.open(tmp_path / DATABASE, to_write=True)) as store:
        assert store.query("PRAGMA user_version") == [(store_module.SCHEMA_VERSION,)]
        assert len(replay(store).trials) == 4
    assert list(RunView(tmp_path).problems()) == []


def test_that_there_is_a_kept_database_of_the_present_schema():
    assert (RELEASED / f"schema-{store_module.SCHEMA_VERSION}.db").is_file()


@pytest.mark.parametrize(
    ("fstype", "mode"), [("nfs4", "delete"), ("cifs", "delete"), ("ext4", "wal"), ("tmpfs", "wal")]
)
def test_that_network_file_systems_get_a_rollback_journal(fstype, mode, tmp_path, monkeypatch):
    partitions = [SimpleNamespace(mountpoint="/", fstype=fstype)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: partitions)
    store_module._is_across_a_network.cache_clear()

    with closing(Store.create(tmp_path / DATABASE, {})) as store:
        assert store.query("PRAGMA journal_mode") == [(mode,)]
    store_module._is_across_a_network.cache_clear()


# The lease -----------------------------------------------------------------------------------------------------------


def ignore(*_):
    """Takes any message and does nothing with it."""


def test_that_a_second_program_is_refused_with_the_first_ones_pid_and_host(run):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from scheduler.store import Lease\n"
        "Lease(Path(sys.argv[1]), print, print)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(run.store.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"by process {first.pid} on {platform.node()}"):
            Lease(run.store.path, ignore, ignore)
    finally:
        first.kill()
        first.wait()
        first.stdout.close()

    Lease(run.store.path, ignore, ignore).release()


def test_that_a_released_lease_can_be_taken_again(run):
    for _ in range(2):
        lease = Lease(run.store.path, ignore, ignore)
        lease.release()
        lease.release()


def put_lease(run, *, host, beat):
    with closing(sqlite3.connect(run.store.path)) as connection, connection:
        connection.execute("INSERT INTO lease VALUES (1, 'other', 1, 0.0, ?, ?)", (host, beat))


def test_that_a_lease_of_another_host_counts_until_its_beat_is_stale(run):
    put_lease(run, host="elsewhere", beat=time.time() - store_module.LEASE_STALE_S / 2)

    with pytest.raises(RunLockedError, match="on elsewhere"):
        Lease(run.store.path, ignore, ignore)


@pytest.mark.parametrize(("host", "age"), [("elsewhere", 2 * store_module.LEASE_STALE_S), (platform.node(), 0.0)])
def test_that_a_lease_of_a_dead_program_is_taken_over(run, host, age):
    put_lease(run, host=host, beat=time.time() - age)

    Lease(run.store.path, ignore, ignore).release()


def test_that_a_dead_program_whose_parent_has_not_noticed_holds_no_lease(run):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    born = process.create_time()
    child.stdin.close()
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with closing(sqlite3.connect(run.store.path)) as connection, connection:
        connection.execute(
            "INSERT INTO lease VALUES (1, 'other', ?, ?, ?, ?)", (child.pid, born, platform.node(), time.time())
        )

    Lease(run.store.path, ignore, ignore).release()
    child.wait()


def test_that_a_program_that_lost_its_lease_is_told(run, monkeypatch):
    monkeypatch.setattr(store_module, "LEASE_BEAT_S", 0.0)
    monkeypatch.setattr(store_module, "INBOX_EVERY_S", 0.01)
    lost = threading.Event()
    lease = Lease(run.store.path, lost.set, ignore)
    with closing(sqlite3.connect(run.store.path, timeout=10)) as connection, connection:
        connection.execute("UPDATE lease SET token = 'another'")

    assert lost.wait(10)
    lease.release()


def test_that_requests_reach_the_program_that_works_on_the_run_once(run, monkeypatch):
    monkeypatch.setattr(store_module, "INBOX_EVERY_S", 0.01)
    requests, second = [], threading.Event()

    def take(request):
        requests.append(request)
        if len(requests) == 2:
            second.set()

    lease = Lease(run.store.path, ignore, take)
    run.store.ask({"kind": "cancel", "trial": 3})
    run.store.ask({"kind": "stop"})

    assert second.wait(10)
    lease.release()
    assert requests == [{"kind": "cancel", "trial": 3}, {"kind": "stop"}]
