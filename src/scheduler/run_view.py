"""A run as readers see it: queries on its database, while it goes on and after it. Never writes, never loads Ax."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.core.machine import ExperimentState
from scheduler.core.plan import point_text
from scheduler.core.states import JobState, TrialState
from scheduler.identity import workflow_of
from scheduler.run_directory import DATABASE
from scheduler.store import Store, holder_of


@dataclass(frozen=True, slots=True)
class JobView:
    """One job.

    Attributes:
        trial: Index of the trial.
        step: Name of the step.
        point: Its combination of global parameters, or ``None``, as text.
        state: Where it is.
        attempt: Number of the latest attempt.
        native_id: The backend's name of it.
        started_at: When it began to run, seconds since the epoch.
        ended_at: When it ended.
        cause: Kind of its failure.
        message: Its failure in a sentence.
        log: Path of the log that tells more.
        link: Where a person can look at it in the backend's own pages; empty if nowhere.
        source: Where its result comes from when it was not simply run; empty otherwise.
    """

    trial: int
    step: str
    point: str
    state: JobState
    attempt: int
    native_id: str
    started_at: float | None
    ended_at: float | None
    cause: str | None
    message: str | None
    log: str | None
    link: str
    source: str


@dataclass(frozen=True, slots=True)
class TrialView:
    """One trial.

    Attributes:
        index: Its number.
        state: Where it is.
        parameters: Its design.
        started_at: When it started, seconds since the epoch.
        ended_at: When its last job ended.
        is_told: Whether the optimizer knows.
        failure: Why it failed.
        result: What its final step returned.
        job_seconds: Seconds its jobs ran, added up.
    """

    index: int
    state: TrialState
    parameters: Mapping[str, Any]
    started_at: float
    ended_at: float | None
    is_told: bool
    failure: str | None
    result: Mapping[str, Any] | None
    job_seconds: float


class RunView:
    """A run for reading.

    Args:
        path: The run directory.

    Raises:
        StoreError: It is no run directory, or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = Store.open(self.path / DATABASE)
        self.about: dict[str, Any] = self.store.about()
        known = self.store.columns("jobs")
        self._late_columns = ", ".join(name if name in known else "''" for name in ("link", "source"))

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    @property
    def objectives(self) -> Mapping[str, str]:
        """Objective -> ``minimize`` or ``maximize``."""
        objectives: Mapping[str, str] = self.about["identity"]["objectives"]
        return objectives

    def holder(self) -> tuple[int, str] | None:
        """Process number and host of the program that works on the run; None when nobody does."""
        return holder_of(self.store)

    def trial_counts(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        rows = self.store.query("SELECT state, count(*) FROM trials GROUP BY state")
        return {TrialState(str(state)): int(str(count)) for state, count in rows}

    def step_counts(self) -> dict[str, dict[JobState, int]]:
        """How many submitted jobs of each step are in each state; steps in the order of the graph."""
        counts: dict[str, dict[JobState, int]] = {step: {} for step in self.about["identity"]["steps"]}
        for step, state, count in self.store.query("SELECT step, state, count(*) FROM jobs GROUP BY step, state"):
            counts[str(step)][JobState(str(state))] = int(str(count))
        return counts

    def standing(self) -> str:
        """The best result, or the hypervolume, when the optimizer was last told something."""
        rows = self.store.query("SELECT body FROM events WHERE kind = 'TrialTold' ORDER BY id DESC LIMIT 1")
        return str(json.loads(str(rows[0][0])).get("standing", "")) if rows else ""

    def failures(self) -> list[tuple[str, str, int]]:
        """Cause, message and number of failed jobs, the commonest first."""
        rows = self.store.query(
            "SELECT cause, max(message), count(*) FROM jobs WHERE state = 'failed' GROUP BY cause ORDER BY 3 DESC"
        )
        return [(str(cause), str(message), int(str(count))) for cause, message, count in rows]

    def jobs(self, *, trial: int | None = None, active_only: bool = False) -> list[JobView]:
        """Jobs that were submitted or decided at least once.

        Args:
            trial: Only those of this trial.
            active_only: Only those that a backend has.
        """
        statement = (
            f"SELECT trial, step, point, state, attempt, native_id, started_at, ended_at, cause, message, log, "  # noqa: S608
            f"{self._late_columns} FROM jobs "
            "WHERE coalesce(trial = ?, 1) AND (? OR state IN ('submitting', 'queued', 'running', 'cancelling')) "
            "ORDER BY trial, started_at"
        )
        return [_job_view(row) for row in self.store.query(statement, (trial, not active_only))]

    def first_failure(self, trial: int) -> JobView | None:
        """The job that failed first in a trial; None if none did."""
        failed = [job for job in self.jobs(trial=trial) if job.state is JobState.FAILED]
        return min(failed, key=lambda job: job.ended_at or 0.0, default=None)

    def trials_that_share(self, message: str) -> int:
        """In how many trials a job failed with this very message."""
        rows = self.store.query(
            "SELECT count(DISTINCT trial) FROM jobs WHERE state = 'failed' AND message = ?", (message,)
        )
        return int(str(rows[0][0]))

    def trials(self, *, index: int | None = None) -> Iterator[TrialView]:
        """The trials, in order, or one of them."""
        statement = (
            "SELECT trial, state, parameters, started_at, ended_at, is_told, failure, result, "
            "(SELECT sum(ended_at - started_at) FROM jobs WHERE jobs.trial = trials.trial) "
            "FROM trials WHERE coalesce(trial = ?, 1) ORDER BY trial"
        )
        for row in self.store.query(statement, (index,)):
            number, state, parameters, started_at, ended_at, is_told, failure, result, seconds = row
            yield TrialView(
                index=int(str(number)),
                state=TrialState(str(state)),
                parameters=json.loads(str(parameters)),
                started_at=float(str(started_at)),
                ended_at=None if ended_at is None else float(str(ended_at)),
                is_told=bool(is_told),
                failure=None if failure is None else str(failure),
                result=None if result is None else json.loads(str(result)),
                job_seconds=0.0 if seconds is None else float(str(seconds)),
            )

    def logs(self, trial: int, step: str | None = None) -> list[Path]:
        """The log files of a trial's jobs, or of one of its steps."""
        directory = self.path / "trials" / str(trial)
        return sorted((directory / step if step else directory).rglob("log.txt"))

    def problems(self) -> Iterator[str]:
        """What is wrong with the database: replays all events and compares every projection with the outcome."""
        for (line,) in self.store.query("PRAGMA integrity_check"):
            if line != "ok":
                yield f"the file is damaged: {line}"
        state = ExperimentState(workflow_of(self.about["identity"]))
        for number, event in self.store.events():
            if not state.apply(event):
                yield f"event {number} ({type(event).__name__}) is no news"
        state.check()
        yield from self._wrong_trials(state)
        yield from self._wrong_jobs(state)

    def _wrong_trials(self, state: ExperimentState) -> Iterator[str]:
        written = {trial.index: trial for trial in self.trials()}
        for index in sorted({*written, *state.trials}):
            view, record = written.get(index), state.trials.get(index)
            if view is None or record is None:
                yield f"trial {index} is in the {'events' if view is None else 'table'} only"
            elif (view.state, view.is_told, dict(view.parameters)) != (
                record.state,
                record.is_told,
                dict(record.parameters),
            ):
                yield f"trial {index}: the table says {view.state}, the events {record.state}"
            elif view.result != (dict(state.result(index)) if record.state is TrialState.COMPLETED else None):
                yield f"trial {index}: the result in the table is not that of the events"

    def _wrong_jobs(self, state: ExperimentState) -> Iterator[str]:
        written = {(job.trial, job.step, job.point): job for job in self.jobs()}
        for trial in state.trials.values():
            for record in trial.jobs.values():
                job = written.pop((trial.index, record.id.step, point_text(record.id.point)), None)
                if job is None and record.state is not JobState.WAITING:
                    yield f"{record.id} is missing in the table"
                elif job is not None and (job.state, job.attempt, job.native_id) != (
                    record.state,
                    record.attempt,
                    record.native_id,
                ):
                    yield f"{record.id}: the table says {job.state}, the events {record.state}"
        for key in written:
            yield f"job {key} is in the table only"


def _job_view(row: tuple[object, ...]) -> JobView:
    trial, step, point, state, attempt, native_id, started_at, ended_at, cause, message, log, link, source = row
    return JobView(
        trial=int(str(trial)),
        step=str(step),
        point=point_text(tuple((name, value) for name, value in json.loads(str(point)))),
        state=JobState(str(state)),
        attempt=int(str(attempt)),
        native_id=str(native_id),
        started_at=None if started_at is None else float(str(started_at)),
        ended_at=None if ended_at is None else float(str(ended_at)),
        cause=None if cause is None else str(cause),
        message=None if message is None else str(message),
        log=None if log is None else str(log),
        link=str(link),
        source=str(source),
    )
