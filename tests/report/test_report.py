"""Progress and the summary at the end."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from scheduler.core.summary import JobCounts, RunSummary
from scheduler.report import (
    LiveReport,
    PlainReport,
    SilentReport,
    TrialRow,
    make_row,
    open_report,
    print_outcome,
    trials_table,
)

FOREVER_S = 3600.0


class Lines(io.StringIO):
    """A stream that tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def terminal():
    """A pseudo-terminal of our own: the stream to write to, and a function that returns what was written."""
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w", encoding="utf-8")
    seen: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                seen.append(chunk)
        except OSError:  # how a pseudo-terminal says that the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()

    def finish() -> str:
        if not stream.closed:
            stream.close()
        reader.join(timeout=10)
        return b"".join(seen).decode()

    yield stream, finish
    finish()
    os.close(ours)


def test_that_progress_false_shows_nothing():
    stream = Lines()

    report = open_report(False, stream)
    report.update(RunSummary(max_trials=3))
    report.say("hello")
    report.close()

    assert isinstance(report, SilentReport)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("progress", [None, True])
def test_that_a_file_gets_plain_lines(progress):
    assert isinstance(open_report(progress, Lines()), PlainReport)


def test_that_a_terminal_gets_a_live_view_unless_it_is_dumb(terminal, monkeypatch):
    stream, _ = terminal
    monkeypatch.setenv("TERM", "xterm")
    live = open_report(None, stream)
    live.close()
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(live, LiveReport)
    assert isinstance(open_report(None, stream), PlainReport)


def test_that_a_plain_line_says_all_there_is():
    stream = Lines()
    summary = RunSummary(
        max_trials=20,
        completed=5,
        running=3,
        failed=1,
        steps={"sim": JobCounts(waiting=2, running=3, done=12), "merge": JobCounts()},
        phase="Sobol",
        best="f 0.1 in trial 2",
        activity="a candidate",
        common_failure="ValueError: bad",
    )

    PlainReport(stream).update(summary)

    assert stream.getvalue() == (
        "trials: 5 of 20 done, 3 running, 1 failed | sim: 2 waiting, 3 running, 12 done | merge: no jobs | "
        "best: f 0.1 in trial 2 | phase: Sobol | activity: a candidate | commonest failure: ValueError: bad\n"
    )


def test_that_an_unchanged_state_is_not_written_again():
    stream = Lines()
    report = PlainReport(stream, interval_s=0.0)

    for _ in range(3):
        report.update(RunSummary(max_trials=3, completed=1))

    assert len(stream.lines()) == 1


def test_that_quick_changes_are_one_line_and_the_last_is_written_at_close():
    stream = Lines()
    report = PlainReport(stream, interval_s=FOREVER_S)

    for completed in range(100):
        report.update(RunSummary(max_trials=100, completed=completed))
    before = stream.lines()
    report.close()
    report.close()

    assert before == ["trials: 0 of 100 done, 0 running"]
    assert stream.lines()[1:] == ["trials: 99 of 100 done, 0 running"]


def test_that_a_change_within_the_interval_is_written_when_it_is_over_though_nothing_happens():
    stream = Lines()
    report = PlainReport(stream, interval_s=0.05)
    report.update(RunSummary(max_trials=3))
    stream.written.clear()

    report.update(RunSummary(max_trials=3, completed=1))
    report.update(RunSummary(max_trials=3, completed=2))
    assert stream.written.wait(timeout=10)
    report.close()

    assert stream.lines()[-1] == "trials: 2 of 3 done, 0 running"


def test_that_a_state_which_returns_to_the_written_one_is_not_written_again():
    stream = Lines()
    report = PlainReport(stream, interval_s=FOREVER_S)

    report.update(RunSummary(max_trials=3))
    report.update(RunSummary(max_trials=3, running=1))
    report.update(RunSummary(max_trials=3))
    report.close()

    assert len(stream.lines()) == 1


def test_that_a_spoken_line_follows_the_state_before_it():
    stream = Lines()
    report = PlainReport(stream, interval_s=FOREVER_S)
    report.update(RunSummary(max_trials=3))
    report.update(RunSummary(max_trials=3, completed=3))

    report.say("stopping")

    assert stream.lines()[1:] == ["trials: 3 of 3 done, 0 running", "stopping"]
    report.close()


def test_that_a_reader_who_has_gone_does_not_stop_the_run(caplog):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", encoding="utf-8")
    report = PlainReport(stream, interval_s=0.0)

    report.update(RunSummary(max_trials=3))
    report.update(RunSummary(max_trials=3, completed=1))
    report.say("more")
    report.close()

    assert [record.getMessage() for record in caplog.records] == [
        "progress can no longer be written ([Errno 32] Broken pipe); the run goes on"
    ]
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_that_the_live_view_shows_the_last_state_and_takes_user_text_as_it_is(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream, finish = terminal
    report = LiveReport(stream)

    report.update(
        RunSummary(
            max_trials=4,
            completed=2,
            running=1,
            failed=1,
            steps={"sim": JobCounts(done=7, failed=1)},
            best="f 0.1 in trial 2",
            common_failure="KeyError: [red]'x'[/red]",
        )
    )
    report.say("[bold]a line that stays")
    report.close()
    report.close()

    shown = finish()
    assert "2/4 done, 1 running" in shown
    assert ", 1 failed" in shown
    assert "f 0.1 in trial 2" in shown
    assert "[red]'x'[/red]" in shown
    assert "[bold]a line that stays" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_that_updating_the_live_view_costs_less_than_a_millisecond(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, _ = terminal
    report = LiveReport(stream)
    summary = RunSummary(max_trials=4, steps={f"step{number}": JobCounts() for number in range(10)})

    started = time.perf_counter()
    for _ in range(1000):
        report.update(summary)
    spent_s = time.perf_counter() - started
    report.close()

    assert spent_s < 1.0


PROGRAM_WITH_A_LOG = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
handler = logging.getLogger().handlers[0]
stdout, stderr = sys.stdout, sys.stderr
from scheduler.core.summary import RunSummary
from scheduler.report import open_report
report = open_report(None)
report.update(RunSummary(max_trials=4, best="THE BEST"))
logging.info("LOGGED")
print("PRINTED")
report.close()
assert (sys.stdout, sys.stderr) == (stdout, stderr)
assert handler.stream is stderr
logging.info("AFTER")
"""


def test_that_log_lines_and_prints_pass_above_the_live_view_and_all_is_put_back():
    shown = run_on_a_terminal(PROGRAM_WITH_A_LOG)

    # Each line that stays ends where it is, and the view is drawn anew below it.
    rows = [row.strip() for row in replay(shown) if row.strip()]
    assert [row for row in rows if row in {"LOGGED", "PRINTED", "AFTER"}] == ["LOGGED", "PRINTED", "AFTER"]
    assert sum("THE BEST" in row for row in rows) == 1
    assert rows[-1] == "AFTER"


def test_that_what_a_program_prints_into_a_file_stays_in_the_file(tmp_path):
    printed = tmp_path / "printed.txt"

    shown = run_on_a_terminal(PROGRAM_WITH_A_LOG, stdout=printed)

    assert printed.read_text() == "PRINTED\n"
    assert "PRINTED" not in shown


def test_that_rich_is_not_imported_for_plain_lines():
    program = textwrap.dedent("""
        import sys
        from scheduler.core.summary import RunSummary
        from scheduler.report import open_report
        for progress in (False, None):
            report = open_report(progress)
            report.update(RunSummary(max_trials=1))
            report.close()
        print("rich" in sys.modules)
    """)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@dataclass
class Done:
    """A trial, as far as the end of a run looks at it."""

    index: int
    results: Mapping[str, object] | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    state: str = "completed"
    error: str | None = None

    def get_results(self):
        return self.results


def outcome(best=None, trials=(), run_directory=None, **options) -> str:
    stream = io.StringIO()
    print_outcome({"x": 0.5} if best is None else best, trials, run_directory, stream=stream, **options)
    return stream.getvalue()


def test_that_the_table_shows_all_columns_and_elides_the_middle_of_many_trials():
    text = outcome(trials=[Done(i, {"f": i / 3}, {"x": i / 7, "mode": "a[b]"}) for i in range(30)])

    shown = [int(line.split("│")[1]) for line in text.splitlines() if line.startswith("│") and "..." not in line]
    assert shown == [*range(10), *range(20, 30)]
    assert "10 more" in text
    assert "0.333333" in text
    assert "0.142857" in text
    assert "a[b]" in text
    assert "reason of failure" not in text


def test_that_twenty_trials_are_not_elided():
    assert len(trials_table([TrialRow(i, "completed") for i in range(20)]).rows) == 20


def test_that_a_failed_trial_has_its_reason_and_no_objective():
    text = outcome(trials=[Done(0, {"f": 1.0}), Done(1, None, {}, "failed", "KeyError: 'y'")])

    assert "reason of failure" in text
    assert "│     1 │ failed    │   │ KeyError: 'y'     │" in text


def test_that_a_measurement_with_an_error_is_shown_by_its_mean():
    assert make_row(Done(0, {"f": [1.5, 0.1], "note": "fine", "ok": True, "n": 2})).objectives == {"f": 1.5, "n": 2.0}


def test_that_only_the_named_objectives_are_shown_in_their_order():
    row = make_row(Done(0, {"mass": 7, "f": 1.5, "g": 2.5}), ["g", "f", "missing"])

    assert list(row.objectives.items()) == [("g", 2.5), ("f", 1.5)]


def test_that_the_outcome_names_the_best_parameters_in_full_and_the_run_directory():
    text = outcome({"x": 0.12345678901, "mode": "a"}, run_directory="runs/7")

    assert text == "Best parameters\n  x = 0.12345678901\n  mode = a\nRun directory: runs/7\n"


def test_that_the_outcome_lists_the_pareto_set():
    text = outcome({4: ({"x": 0.5}, ({"f": 1.25, "g": 2.0}, {}))})

    assert "Pareto set: 1 trial" in text
    assert "│     4 │ 1.25 │ 2 │ 0.5 │" in text
    assert "status" not in text


def test_that_an_empty_pareto_set_is_said_to_be_empty():
    assert outcome({}) == "The Pareto set is empty: no result keeps the constraints and thresholds.\n"


def test_that_handlers_of_other_streams_and_files_are_left_alone(tmp_path, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, _ = terminal
    mine = io.StringIO()
    handlers = [logging.StreamHandler(mine), logging.FileHandler(tmp_path / "log.txt")]
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    streams = [handler.stream for handler in handlers]

    report = LiveReport(stream)
    during = [handler.stream for handler in handlers]
    report.close()

    for handler in handlers:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert during == streams


def run_on_a_terminal(program: str, stdout=None) -> str:
    """What a program shows on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with open(stdout, "w") if stdout else os.fdopen(os.dup(theirs), "w") as out:  # noqa: PTH123 - either kind
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=theirs, stdout=out, stderr=theirs, env=environment
        )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how a pseudo-terminal says that the program has ended
        os.close(ours)
    assert process.wait(timeout=30) == 0, shown.decode()
    return shown.decode()


def replay(shown: str) -> list[str]:
    """The rows of the terminal after the output, for the few commands that rich uses."""
    rows, row, column = [""], 0, 0
    position = 0
    while position < len(shown):
        sign = shown[position]
        position += 1
        if sign == "\x1b" and shown[position] == "[":
            end = position + 1
            while not shown[end].isalpha():
                end += 1
            argument, command = shown[position + 1 : end], shown[end]
            position = end + 1
            if command == "A":
                row = max(0, row - int(argument or 1))
            elif command == "K":
                rows[row] = "" if argument == "2" else rows[row][:column]
        elif sign == "\r":
            column = 0
        elif sign == "\n":
            row += 1
            rows.extend([""] * (row + 1 - len(rows)))
        else:
            rows[row] = rows[row][:column].ljust(column) + sign + rows[row][column + 1 :]
            column += 1
    return rows
