"""One row per trial, for tables and plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from scheduler.errors import ConfigurationError
from scheduler.run_view import TrialView

FORMATS = ("csv", "json", "parquet")


def rows_of(trials: Iterable[TrialView]) -> list[dict[str, Any]]:
    """A flat row for each trial.

    ``trial``, ``status``, the parameters, for each metric its mean and ``<metric>_sem``, ``started_at`` and
    ``ended_at`` (seconds since the epoch), ``elapsed_s``, ``job_s`` (seconds of all its jobs: what it cost) and
    ``failure``. A parameter and a metric of the same name are told apart by the prefixes ``parameter.`` and
    ``metric.``.
    """
    found = list(trials)
    parameters = {name for trial in found for name in trial.parameters}
    metrics = {name for trial in found for name in trial.result or {}}
    reserved = {"trial", "status", "started_at", "ended_at", "elapsed_s", "job_s", "failure"}
    return [_row(trial, ambiguous=(parameters & metrics) | reserved) for trial in found]


def _row(trial: TrialView, *, ambiguous: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.index, "status": trial.state.value}
    for name, value in trial.parameters.items():
        row[f"parameter.{name}" if name in ambiguous else name] = value
    for name, value in (trial.result or {}).items():
        column = f"metric.{name}" if name in ambiguous else name
        row[column], row[f"{column}_sem"] = value if isinstance(value, list) else (value, None)
    return {
        **row,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "elapsed_s": None if trial.ended_at is None else trial.ended_at - trial.started_at,
        "job_s": trial.job_seconds,
        "failure": trial.failure,
    }


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """All columns, in the order in which they first appear; those at the end stay at the end."""
    tail = ["started_at", "ended_at", "elapsed_s", "job_s", "failure"]
    seen = dict.fromkeys(name for row in rows for name in row if name not in tail)
    return [*seen, *tail]


def write(rows: Sequence[dict[str, Any]], form: str, stream: TextIO | Path) -> None:
    """Write rows.

    Args:
        rows: What :func:`rows_of` made.
        form: One of :data:`FORMATS`.
        stream: An open text stream, or the path of a file; Parquet, which is not text, wants a path.

    Raises:
        ConfigurationError: Parquet without a path or without the package that writes it.
    """
    if form == "parquet":
        _write_parquet(rows, stream)
    elif isinstance(stream, Path):
        with stream.open("w", encoding="utf-8", newline="") as file:
            write(rows, form, file)
    elif form == "json":
        json.dump(list(rows), stream, indent=2)
        stream.write("\n")
    else:
        writer = csv.DictWriter(stream, fieldnames=columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(rows: Sequence[dict[str, Any]], path: TextIO | Path) -> None:
    if not isinstance(path, Path):
        raise ConfigurationError("parquet is not text: name a file with --output")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError("parquet needs the package pyarrow: pip install 'aid2e-scheduler[parquet]'") from error
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns_of(rows)}), path)
