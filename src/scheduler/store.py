"""The database of a run: one SQLite file that a crash at any instant leaves whole.

``events`` is append-only and the truth. ``jobs`` and ``trials`` are projections, written in the same transaction, so
that readers query instead of replaying. One writer holds the lease; readers never write but for requests in ``inbox``.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from scheduler.core.events import Event, JobEvent, decode, encode
from scheduler.core.machine import ExperimentState, JobRecord, TrialRecord
from scheduler.core.plan import JobId
from scheduler.core.states import TrialState
from scheduler.errors import RunLockedError, StoreError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2
LEASE_BEAT_S = 10.0
"""How often a writer says that it lives."""
INBOX_EVERY_S = 1.0
"""How often a writer looks for requests."""
LEASE_STALE_S = 60.0
"""After this long without a sign of life a writer on another host counts as dead."""

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, trial INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX events_of_trial ON events (trial, id);
CREATE TABLE trials (
    trial INTEGER PRIMARY KEY, state TEXT NOT NULL, parameters TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    is_told INTEGER NOT NULL, failure TEXT, result TEXT
);
CREATE TABLE jobs (
    trial INTEGER NOT NULL, step TEXT NOT NULL, point TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL,
    label TEXT NOT NULL, native_id TEXT NOT NULL, cause TEXT, message TEXT, log TEXT, started_at REAL, ended_at REAL,
    link TEXT NOT NULL DEFAULT '', source TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (trial, step, point)
) WITHOUT ROWID;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE snapshot (only INTEGER PRIMARY KEY CHECK (only = 1), event INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE lease (
    only INTEGER PRIMARY KEY CHECK (only = 1), token TEXT NOT NULL, pid INTEGER NOT NULL, born REAL NOT NULL,
    host TEXT NOT NULL, beat REAL NOT NULL
);
CREATE TABLE inbox (id INTEGER PRIMARY KEY, at REAL NOT NULL, request TEXT NOT NULL, taken_at REAL);
"""

_PUT_EVENT = "INSERT INTO events (at, trial, kind, body) VALUES (?, ?, ?, ?)"
_PUT_JOB = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_TRIAL = "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

_MIGRATIONS: dict[int, str] = {
    1: """
    ALTER TABLE jobs ADD COLUMN link TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN source TEXT NOT NULL DEFAULT '';
    """,
}
"""Version -> the statements that lead from it to the next."""

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afs", "lustre", "gpfs", "beegfs", "ceph", "fuse.", "9p", "glusterfs")


@dataclass(slots=True)
class _Pending:
    """What was appended and is not written yet.

    Attributes:
        events: Rows of events.
        snapshot: The optimizer's state, and how many of these events had happened then.
        jobs: Jobs whose rows have changed.
        trials: Trials whose rows have changed.
        state: The run after all of it; None when there is nothing.
    """

    events: list[tuple[object, ...]] = field(default_factory=list)
    snapshot: tuple[int, str] | None = None
    jobs: dict[JobId, None] = field(default_factory=dict)
    trials: dict[int, None] = field(default_factory=dict)
    state: ExperimentState | None = None


class Store:
    """The database of one run.

    Args:
        path: The file.
        connection: An open connection to it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._trial_states: dict[int, TrialState] = {}
        self._pending = _Pending()
        self._is_closed = False

    @classmethod
    def create(cls, path: Path, about: Mapping[str, object]) -> Store:
        """Make the database of a new run.

        Args:
            path: The file, which must not exist.
            about: What is known of the run, made of JSON types.

        Raises:
            StoreError: It exists, or cannot be written.
        """
        if path.exists():
            raise StoreError(f"{path} exists already: resume that run, or name another run directory")
        with _errors_of(path):
            connection = _connect(path)
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            rows = [(name, json.dumps(value)) for name, value in about.items()]
            connection.executemany("INSERT INTO about VALUES (?, ?)", rows)
            return cls(path, connection)

    @classmethod
    def open(cls, path: Path, *, to_write: bool = False) -> Store:
        """Open the database of a run.

        Args:
            path: The file.
            to_write: Bring an older database up to date; the caller takes the lease. Readers see it as it is.

        Raises:
            StoreError: There is none, it is damaged, or a newer release wrote it.
        """
        if not path.is_file():
            raise StoreError(f"{path.parent} is no run directory: there is no {path.name} in it")
        with _errors_of(path):
            connection = _connect(path)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION or version == 0:
                raise StoreError(
                    f"{path} has schema version {version}, this release reads up to {SCHEMA_VERSION}: "
                    "use the release that wrote it, or a newer one"
                )
            if to_write:
                _migrate(connection, version)
            return cls(path, connection)

    def close(self) -> None:
        """Commit and close the connection. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self.commit()
            finally:
                self._connection.close()

    # About the run --------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, object]:
        """What is known of the run."""
        rows = self.query("SELECT name, value FROM about")
        return {str(name): json.loads(str(value)) for name, value in rows}

    def note(self, name: str, value: object) -> None:
        """Keep or change one thing that is known of the run."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """The rows of a SELECT, for reports."""
        with _errors_of(self.path):
            self._write_pending()
            return self._connection.execute(statement, values).fetchall()

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table; a reader of an older database finds fewer."""
        return frozenset(str(row[1]) for row in self.query(f"PRAGMA table_info({table})"))

    # Events ---------------------------------------------------------------------------------------------------------

    def append(self, event: Event, state: ExperimentState, snapshot: str | None = None) -> None:
        """Take an event that has just been applied, with its projections and, if given, the optimizer's state.

        It lasts from :meth:`commit` on: events are written together, so that the disk is not waited for, nor other
        writers kept out, each time, and a job that went through several states meanwhile is projected once.

        Args:
            event: The event.
            state: The run after it.
            snapshot: The optimizer's state after it.
        """
        trial = event.job.trial if isinstance(event, JobEvent) else event.trial
        record = encode(event)
        pending = self._pending
        pending.state = state
        pending.events.append((event.at, trial, record.pop("kind"), json.dumps(record)))
        if snapshot is not None:
            pending.snapshot = len(pending.events), snapshot
        trial_state = state.trials[trial].state
        if isinstance(event, JobEvent):
            pending.jobs[event.job] = None
        if not isinstance(event, JobEvent) or self._trial_states.get(trial) is not trial_state:
            self._trial_states[trial] = trial_state
            pending.trials[trial] = None

    def commit(self) -> None:
        """Make what was appended last, whatever happens to the program or the machine.

        Raises:
            StoreError: Nothing since the last commit was written: a full disk, a read-only file system.
        """
        with _errors_of(self.path), self._undone_on_error():
            self._write_pending()
            self._connection.commit()

    def _write_pending(self) -> None:
        pending, self._pending = self._pending, _Pending()
        if pending.state is None:
            return
        self._begin()
        put = self._connection.executemany
        last, snapshot = pending.snapshot or (0, None)
        put(_PUT_EVENT, pending.events[:last])
        if snapshot is not None:
            body = zlib.compress(snapshot.encode(), level=1)
            self._connection.execute(
                "INSERT OR REPLACE INTO snapshot VALUES (1, (SELECT max(id) FROM events), ?)", (body,)
            )
        put(_PUT_EVENT, pending.events[last:])
        put(_PUT_JOB, [_job_row(pending.state.job(job)) for job in pending.jobs])
        put(_PUT_TRIAL, [_trial_row(pending.state, pending.state.trials[trial]) for trial in pending.trials])

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def events(self, *, after: int = 0, trial: int | None = None) -> Iterator[tuple[int, Event]]:
        """The events with their numbers, in order.

        Args:
            after: Only those with a larger number.
            trial: Only those of this trial.

        Raises:
            StoreError: An event cannot be read.
        """
        condition, values = ("", (after,)) if trial is None else (" AND trial = ?", (after, trial))
        for number, kind, body in self.query(
            f"SELECT id, kind, body FROM events WHERE id > ?{condition} ORDER BY id",  # noqa: S608 - no user text
            values,
        ):
            try:
                yield int(str(number)), decode({"kind": kind, **json.loads(str(body))})
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{self.path}: event {number} cannot be read: {error}") from error

    def snapshot(self) -> tuple[int, str] | None:
        """The number of the event after which the optimizer's state was saved, and that state."""
        rows = self.query("SELECT event, body FROM snapshot")
        if not rows:
            return None
        event, body = rows[0]
        assert isinstance(event, int)  # noqa: S101 - the schema says so
        assert isinstance(body, bytes)  # noqa: S101
        return event, zlib.decompress(body).decode()

    # Requests -------------------------------------------------------------------------------------------------------

    def ask(self, body: Mapping[str, object]) -> None:
        """Leave a request for the program that works on the run, which takes it within a second or two."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO inbox (at, request) VALUES (?, ?)", (time.time(), json.dumps(body)))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _errors_of(self.path), self._undone_on_error():
            self._begin()
            yield self._connection
            self._connection.commit()

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Take back what is not committed when anything goes wrong."""
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise


class Lease:
    """The right to write to a run, held by one program at a time, with a thread that keeps it and reads the inbox.

    Args:
        path: The run's database.
        on_lost: Called in the thread when another program took the lease over; the run must stop.
        on_request: Called in the thread with each request of a reader.

    Raises:
        RunLockedError: Another program that lives holds it.
    """

    def __init__(
        self, path: Path, on_lost: Callable[[], None], on_request: Callable[[Mapping[str, object]], None]
    ) -> None:
        self._path, self._on_lost, self._on_request = path, on_lost, on_request
        self._token = uuid.uuid4().hex
        self._is_over = threading.Event()
        self._beaten_at = time.monotonic()
        self._take()
        self._thread = threading.Thread(target=self._keep, name="scheduler-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the next program write. May be called twice."""
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._thread.join()
        with _errors_of(self._path), closing(_connect(self._path)) as connection:
            connection.execute("DELETE FROM lease WHERE token = ?", (self._token,))

    def _take(self) -> None:
        me = psutil.Process()
        row = (self._token, me.pid, me.create_time(), platform.node(), time.time())
        with _errors_of(self._path), closing(_connect(self._path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            holder = connection.execute("SELECT pid, born, host, beat FROM lease").fetchone()
            if holder is not None and _is_alive(*holder):
                pid, _, host, beat = holder
                connection.rollback()
                raise RunLockedError(
                    f"the run {self._path.parent} is being worked on by process {pid} on {host} "
                    f"(last sign of life {time.time() - beat:.0f} s ago): wait for it, or end it first"
                )
            if holder is not None:
                logger.warning("taking over the run from process %s on %s, which is gone", holder[0], holder[2])
            connection.execute("INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?)", row)
            connection.commit()

    def _keep(self) -> None:
        while not self._is_over.wait(INBOX_EVERY_S):
            try:
                with closing(_connect(self._path)) as connection:
                    self._beat(connection)
                    self._read_inbox(connection)
            except sqlite3.Error as error:
                logger.warning("cannot reach %s: %s; trying again", self._path, error)

    def _beat(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() < self._beaten_at + LEASE_BEAT_S:
            return
        cursor = connection.execute("UPDATE lease SET beat = ? WHERE token = ?", (time.time(), self._token))
        self._beaten_at = time.monotonic()
        if cursor.rowcount == 0:
            self._is_over.set()
            self._on_lost()

    def _read_inbox(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT id, request FROM inbox WHERE taken_at IS NULL ORDER BY id").fetchall()
        for number, body in rows:
            connection.execute("UPDATE inbox SET taken_at = ? WHERE id = ?", (time.time(), number))
            self._on_request(json.loads(body))


def holder_of(store: Store) -> tuple[int, str] | None:
    """Process number and host of the program that works on the run; None when nobody does."""
    rows = store.query("SELECT pid, born, host, beat FROM lease")
    if not rows:
        return None
    pid, born, host, beat = rows[0]
    return (
        (int(str(pid)), str(host)) if _is_alive(int(str(pid)), float(str(born)), str(host), float(str(beat))) else None
    )


def _is_alive(pid: int, born: float, host: str, beat: float) -> bool:
    """Whether the holder of a lease still works: exactly known on this host, judged by its beat elsewhere."""
    if host != platform.node():
        return time.time() - beat < LEASE_STALE_S
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - born) < 1.0
        return is_same and process.status() != psutil.STATUS_ZOMBIE  # dead, but nobody has taken note: as in containers
    except psutil.NoSuchProcess:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    mode = "DELETE" if _is_across_a_network(os.path.realpath(path.parent)) else "WAL"
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@cache
def _is_across_a_network(directory: str) -> bool:
    """Whether the directory is on a network file system, where SQLite's WAL does not work. Warns once."""
    mounts = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if directory == partition.mountpoint or directory.startswith(partition.mountpoint.rstrip("/") + "/")
    ]
    kind = max(mounts, key=lambda partition: len(partition.mountpoint)).fstype if mounts else ""
    is_network = kind.startswith(_NETWORK_FILE_SYSTEMS)
    if is_network:
        logger.warning(
            "%s is on a network file system (%s): the run's database works there, but slower; "
            "a run directory on a local disk is better",
            directory,
            kind,
        )
    return is_network


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for old in range(version, SCHEMA_VERSION):
        connection.executescript(f"BEGIN; {_MIGRATIONS[old]} PRAGMA user_version = {old + 1}; COMMIT;")
        logger.info("the run's database was brought from schema version %d to %d", old, old + 1)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"cannot use the run's database {path}: {error}; {_remedy(str(error))}") from error


def _remedy(error: str) -> str:
    if "full" in error:
        return "the disk is full: make room and resume the run, nothing that was recorded is lost"
    if "readonly" in error or "unable to open" in error:
        return "make the run directory writable"
    if "malformed" in error or "not a database" in error:
        return "the file is damaged: restore it from a copy"
    return "if it is locked, another program holds it"


def _job_row(record: JobRecord) -> tuple[object, ...]:
    failure, found = record.failure, record.infeasibility
    return (
        record.id.trial,
        record.id.step,
        json.dumps(record.id.point),
        record.state.value,
        record.attempt,
        record.label,
        record.native_id,
        failure and failure.cause.value,
        found.reason if found is not None else failure and failure.message,
        failure and failure.log,
        record.started_at,
        record.ended_at,
        record.link,
        record.source,
    )


def _trial_row(state: ExperimentState, record: TrialRecord) -> tuple[object, ...]:
    failure, found = state.failure(record.index), state.infeasibility(record.index)
    reason = found.reason if found is not None else str(failure) if failure is not None else record.told_failure
    is_complete = record.state is TrialState.COMPLETED
    return (
        record.index,
        record.state.value,
        json.dumps(dict(record.parameters)),
        record.started_at,
        record.ended_at,
        record.is_told,
        reason,
        json.dumps(dict(state.result(record.index))) if is_complete else None,
    )
