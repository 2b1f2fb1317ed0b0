"""Progress for people: a live view on a terminal, lines in a log, or nothing; and the summary at the end of a run.

rich is imported only when there is something to draw with it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from scheduler.core.specs import Scalar
from scheduler.core.summary import JobCounts, RunSummary

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

logger = logging.getLogger(__name__)

_REFRESHES_PER_SECOND = 4
_PLAIN_INTERVAL_S = 5.0
_BAR_WIDTH = 40
_MOST_ROWS = 20
_LOG_WIDTH = 160
"""Columns of a table in a file, where no terminal says how many there are."""

ParetoSet = Mapping[int, tuple[Mapping[str, Scalar], object]]
"""Trial -> (parameters, (means, covariances)), as the optimizer gives it."""


class Report(Protocol):
    """Where the progress of a run goes. All methods may be called from any thread."""

    def update(self, summary: RunSummary) -> None:
        """Show where the run stands. Cheap: it may be called at every event."""
        ...

    def say(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def close(self) -> None:
        """Show the last state and give the terminal back. May be called twice."""
        ...


def open_report(progress: bool | None, stream: TextIO | None = None) -> Report:  # noqa: FBT001 - a user's option
    """Choose how progress is shown.

    Args:
        progress: False for nothing at all; True or None for a live view where ``stream`` is a terminal that can move
            its cursor, and for plain lines elsewhere.
        stream: Where to; standard error by default, so that what a program prints stays clean.
    """
    if progress is False:
        return SilentReport()
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveReport(stream)
    return PlainReport(stream)


class SilentReport:
    """Shows nothing."""

    def update(self, summary: RunSummary) -> None:
        """Take the state and show nothing."""

    def say(self, line: str) -> None:
        """Take the line and show nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainReport:
    """One line whenever something changed, at most one per interval; the latest state is never left unsaid.

    A change within the interval is written when the interval is over, even if nothing happens until then.

    Args:
        stream: Where the lines go. When it can no longer be written, a warning is logged and the run goes on.
        interval_s: Least time between two lines, in seconds.
    """

    def __init__(self, stream: TextIO, *, interval_s: float = _PLAIN_INTERVAL_S) -> None:
        self._stream: TextIO | None = stream
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._last, self._pending = "", ""
        self._written_at = float("-inf")
        self._timer: threading.Timer | None = None

    def update(self, summary: RunSummary) -> None:
        """Write the state as a line, now or when the interval is over."""
        line = in_one_line(summary)
        with self._lock:
            self._pending = "" if line == self._last else line
            wait_s = self._written_at + self._interval_s - time.monotonic()
            if wait_s <= 0:
                self._write_pending()
            elif self._pending and self._timer is None:
                self._timer = threading.Timer(wait_s, self._catch_up)
                self._timer.daemon = True
                self._timer.start()

    def say(self, line: str) -> None:
        """Write a line, after the state that it follows."""
        with self._lock:
            self._write_pending()
            self._write(line)

    def close(self) -> None:
        """Write the last state, if it is not written yet."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._write_pending()
            self._stream = None

    def _catch_up(self) -> None:
        with self._lock:
            self._timer = None
            self._write_pending()

    def _write_pending(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._last, self._pending, self._written_at = self._pending, "", time.monotonic()

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # the reader of a pipe has gone, or the file is closed
            self._stream = None
            logger.warning("progress can no longer be written (%s); the run goes on", error)


class LiveReport:
    """A view on a terminal that is redrawn in place by a thread of rich, while log lines pass above it.

    While it is open, standard output and standard error, and the handlers of ``logging`` that write to them, go
    through the view, as far as they are terminals; :meth:`close` puts everything back.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._started_at = time.monotonic()
        self._summary: RunSummary | None = None
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        before = (sys.stdout, sys.stderr)
        self._live.start()
        after = (sys.stdout, sys.stderr)
        self._give_back = _lead_handlers(
            {id(old): new for old, new in zip(before, after, strict=True) if new is not old}
        )

    def update(self, summary: RunSummary) -> None:
        """Keep the state for the next time that the view is drawn."""
        self._summary = summary

    def say(self, line: str) -> None:
        """Write a line above the view."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Draw the last state, leave it on the terminal and give the terminal back."""
        self._give_back()
        self._live.stop()

    def _draw(self) -> Group | Text:
        from rich.text import Text

        if self._summary is None:
            return Text("starting")
        return draw(self._summary, elapsed_s=time.monotonic() - self._started_at, console=self._console)


def _lead_handlers(replacements: Mapping[int, TextIO]) -> Callable[[], None]:
    """Give the handlers of logging that write to a replaced stream the new one.

    A handler holds the stream that was there when it was made: replacing ``sys.stderr`` alone does not reach it, and
    its lines would tear the view apart.

    Args:
        replacements: id of the old stream -> new stream.

    Returns:
        The function that puts the old streams back. It may be called twice.
    """
    moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
    for handler in _stream_handlers():
        if id(handler.stream) in replacements:
            moved.append((handler, handler.stream))
            handler.setStream(replacements[id(handler.stream)])

    def give_back() -> None:
        while moved:
            handler, stream = moved.pop()
            handler.setStream(stream)

    return give_back


def _stream_handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    for each in loggers:
        for handler in getattr(each, "handlers", ()):  # placeholders of parents have none
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler


def in_one_line(summary: RunSummary) -> str:
    """The state of a run in one line of plain text."""
    trials = f"trials: {summary.completed} of {summary.max_trials} done, {summary.running} running"
    if summary.failed:
        trials += f", {summary.failed} failed"
    if summary.infeasible:
        trials += f", {summary.infeasible} infeasible"
    steps = [f"{name}: {_counts_in_words(counts)}" for name, counts in summary.steps.items()]
    rest = {
        "best": summary.best,
        "phase": summary.phase,
        "activity": summary.activity,
        "commonest failure": summary.common_failure,
        "look at": " ".join(summary.links),
    }
    return " | ".join([trials, *steps, *(f"{name}: {value}" for name, value in rest.items() if value)])


def draw(summary: RunSummary, *, elapsed_s: float, console: Console) -> Group:
    """The state of a run as a live view shows it: trials, jobs per step, and what is best, going on and wrong."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid(padding=(0, 1))
    lines.add_column(style="bold", no_wrap=True, min_width=len("failures"))
    lines.add_column(no_wrap=True, overflow="ellipsis")
    lines.add_row("trials", _bar(summary, is_unicode=console.encoding.lower().startswith("utf")))
    for name, value, style in (
        ("best", summary.best, "green"),
        ("phase", summary.phase, ""),
        ("activity", summary.activity, ""),
        ("failures", summary.common_failure, "red"),
        *(("look at", link, "") for link in summary.links),
    ):
        if value:
            lines.add_row(name, Text(value.replace("\n", " "), style=style))
    lines.add_row("elapsed", Text(_duration(elapsed_s)))
    return Group(lines, _steps_table(summary.steps)) if summary.steps else Group(lines)


def _bar(summary: RunSummary, *, is_unicode: bool) -> Text:
    from rich.text import Text

    parts = (
        (summary.completed, "━" if is_unicode else "#", "green"),
        (summary.failed, "━" if is_unicode else "x", "red"),
        (summary.infeasible, "━" if is_unicode else "o", "magenta"),
        (summary.running, "╍" if is_unicode else ">", "yellow"),
    )
    total = max(summary.max_trials, sum(count for count, _, _ in parts), 1)
    bar = Text()
    reached = 0
    for count, sign, style in parts:
        # Rounding the borders, not the lengths, keeps the bar as long as it should be.
        start, reached = round(reached * _BAR_WIDTH / total), reached + count
        bar.append(sign * (round(reached * _BAR_WIDTH / total) - start), style=style)
    bar.append(("─" if is_unicode else ".") * (_BAR_WIDTH - len(bar)), style="dim")
    bar.append(f" {summary.completed}/{summary.max_trials} done, {summary.running} running", style="default")
    if summary.failed:
        bar.append(f", {summary.failed} failed", style="red")
    if summary.infeasible:
        bar.append(f", {summary.infeasible} infeasible", style="magenta")
    return bar


def _steps_table(steps: Mapping[str, JobCounts]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("jobs of step", no_wrap=True)
    for name in _CONDITIONS:
        table.add_column(name, justify="right")
    for step, counts in steps.items():
        numbers = (getattr(counts, name) for name in _CONDITIONS)
        table.add_row(Text(step), *(Text(str(number), style="" if number else "dim") for number in numbers))
    return table


_CONDITIONS = ("waiting", "queued", "running", "done", "failed", "stopped")


def _counts_in_words(counts: JobCounts) -> str:
    numbers = {name: getattr(counts, name) for name in _CONDITIONS}
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number) or "no jobs"


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


class FinishedTrial(Protocol):
    """What the end of a run shows of a trial; ``scheduler.Trial`` is one."""

    @property
    def index(self) -> int:
        """Its number."""
        ...

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """Its design."""
        ...

    @property
    def state(self) -> str:
        """Where it is, in one word."""
        ...

    @property
    def error(self) -> str | None:
        """Why it failed; None if it did not."""
        ...

    def get_results(self) -> Mapping[str, object] | None:
        """What its final step returned; None without a result."""
        ...


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One row of a table of trials.

    Attributes:
        index: The trial.
        status: Its state in one word.
        objectives: Objective -> mean; empty for a trial without result.
        parameters: Its design.
        reason: Why it failed; empty when it did not.
    """

    index: int
    status: str = ""
    objectives: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    reason: str = ""


def make_row(trial: FinishedTrial, objectives: Collection[str] | None = None) -> TrialRow:
    """The row of a trial.

    Args:
        trial: The trial.
        objectives: Which numbers of its result to show; all of them by default.
    """
    results = trial.get_results() or {}
    means = {name: _mean(results.get(name)) for name in (results if objectives is None else objectives)}
    return TrialRow(
        index=trial.index,
        status=str(trial.state),
        objectives={name: mean for name, mean in means.items() if mean is not None},
        parameters=trial.parameters,
        reason=trial.error or "",
    )


def trials_table(rows: Sequence[TrialRow], title: str = "Trials") -> Table:
    """The trials as a table for rich: of many, the first and the last. Columns without any entry are left out."""
    from rich.table import Table
    from rich.text import Text

    objectives = _names(row.objectives for row in rows)
    parameters = _names(row.parameters for row in rows)
    table = Table(title=Text(title, style="bold"), title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("status")
    for name in objectives:
        table.add_column(Text(name), justify="right", style="green")
    for name in parameters:
        table.add_column(Text(name), justify="right")
    table.add_column("reason of failure", overflow="fold", style="red")
    kept = _MOST_ROWS // 2 if len(rows) > _MOST_ROWS else len(rows)
    for row in rows[:kept]:
        table.add_row(*_cells(row, objectives, parameters))
    if kept < len(rows):
        table.add_row("...", f"{len(rows) - 2 * kept} more")
        for row in rows[-kept:]:
            table.add_row(*_cells(row, objectives, parameters))
    table.columns = [column for column in table.columns if any(str(cell) for cell in column.cells)]
    return table


def _cells(row: TrialRow, objectives: Sequence[str], parameters: Sequence[str]) -> list[Text]:
    from rich.text import Text

    values = [row.objectives.get(name, "") for name in objectives] + [
        row.parameters.get(name, "") for name in parameters
    ]
    return [Text(text) for text in (str(row.index), row.status, *map(_rounded, values), row.reason)]


def print_outcome(
    best: Mapping[str, Scalar] | ParetoSet,
    trials: Sequence[FinishedTrial],
    run_directory: str | os.PathLike[str] | None = None,
    *,
    objectives: Collection[str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print what a run came to: the trials, the best parameters or the Pareto set, and where the rest is.

    Args:
        best: The best parameters ``{name: value}``, or the Pareto set, possibly empty.
        trials: The trials.
        run_directory: Where results and logs are.
        objectives: Which numbers of the results to show; all of them by default.
        stream: Where to; standard output by default.
    """
    from rich.console import Console
    from rich.text import Text

    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, width=None if stream.isatty() else _LOG_WIDTH, highlight=False)
    if trials:
        console.print(trials_table([make_row(trial, objectives) for trial in trials]))
    pareto = {key: value for key, value in best.items() if isinstance(key, int)}
    if pareto:
        console.print(_pareto_table(pareto))
    elif best:
        console.print(Text("Best parameters", style="bold"))
        for name, value in best.items():
            console.print(Text(f"  {name} = {value}"), soft_wrap=True)
    else:
        console.print(Text("The Pareto set is empty: no result keeps the constraints and thresholds.", style="bold"))
    if run_directory is not None:
        console.print(Text(f"Run directory: {os.fspath(run_directory)}"), soft_wrap=True)


def _pareto_table(pareto: Mapping[int, Any]) -> Table:
    members = [
        TrialRow(index, objectives=means, parameters=parameters) for index, (parameters, (means, _)) in pareto.items()
    ]
    return trials_table(members, f"Pareto set: {len(members)} trial{'' if len(members) == 1 else 's'}")


def _mean(value: object) -> float | None:
    """The number of a measurement, which is a number or (mean, error); None for anything else."""
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _names(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _rounded(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
