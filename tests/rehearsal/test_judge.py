"""From notes to findings, where a whole rehearsal would be a slow or uncertain way to get the notes."""

from __future__ import annotations

import pytest

from scheduler.rehearsal import Finding, Kind, Severity
from scheduler.rehearsal.judge import judge
from scheduler.rehearsal.notes import Notes
from scheduler.rehearsing import Rehearsal


@pytest.fixture
def rehearsal(tmp_path):
    made = Rehearsal(tmp_path)
    made.prepare()
    return made


def note_use(rehearsal, step, *, seconds, memory_mb, part=""):
    results = str(rehearsal.run / "trials" / "0" / step / "None" / part)
    rehearsal.note("ordered", results=results, walltime_s=100, memory_mb=1000)
    rehearsal.note("used", results=results, seconds=seconds, memory_mb=memory_mb)


def findings_about(rehearsal, step):
    return [finding for finding in judge(rehearsal, exit_code=0) if finding.step == step]


@pytest.mark.parametrize(("seconds", "memory_mb"), [(81, 10), (1, 801)])
def test_that_a_job_near_a_limit_is_a_warning(rehearsal, seconds, memory_mb):
    note_use(rehearsal, "sim", seconds=seconds, memory_mb=memory_mb)

    (finding,) = findings_about(rehearsal, "sim")

    assert (finding.kind, finding.severity) == (Kind.LIMIT, Severity.WARNING)
    assert f"{memory_mb:.1f} of 1000 MB" in finding.message


def test_that_the_jobs_of_a_step_are_one_note_with_the_most_that_any_used(rehearsal):
    note_use(rehearsal, "sim", seconds=10, memory_mb=300, part="slice_000001")
    note_use(rehearsal, "sim", seconds=30, memory_mb=200, part="slice_000002")

    (finding,) = findings_about(rehearsal, "sim")

    assert finding.severity is Severity.NOTE
    assert finding.message == "2 jobs, each at most 30.0 of 100 s and 300.0 of 1000 MB"


def test_that_what_could_not_be_observed_is_a_warning(rehearsal):
    rehearsal.note("ended")
    rehearsal.note("blind", event="all", message="Python 3.7.9 has no audit hooks")

    (warning,) = [each for each in judge(rehearsal, exit_code=0) if each.severity is Severity.WARNING]

    assert warning.kind is Kind.COVERAGE
    assert "Python 3.7.9" in warning.message


def test_that_a_program_that_was_killed_is_an_error_with_its_exit_code(rehearsal):
    (error,) = judge(rehearsal, exit_code=-9)

    assert (error.kind, error.severity) == (Kind.PROGRAM, Severity.ERROR)
    assert "-9" in error.message


def test_that_the_worst_comes_first_and_nothing_twice(rehearsal):
    rehearsal.note("ended")
    for name in ("B", "A", "B"):
        rehearsal.note("variable", name=name, file="program.py", line=3, directory=str(rehearsal.directory))
    rehearsal.note("touch", how="run", path="/x/y", asked="y", file=None, line=None, directory=str(rehearsal.directory))

    findings = judge(rehearsal, exit_code=0)

    assert [each.severity for each in findings] == ["error", "warning", "warning", "note"]
    assert "B" in findings[1].message


def test_that_a_step_is_told_by_the_directory_of_its_job(tmp_path):
    notes = Notes((), tmp_path / "run")

    assert notes.step_of(str(tmp_path / "run" / "trials" / "0" / "sim" / "None" / "work" / "sub")) == "sim"
    assert notes.step_of(str(tmp_path / "run" / "sandboxes" / "unpacked-1" / "template")) is None
    assert notes.step_of("/elsewhere") is None


def test_that_errors_have_a_remedy_and_a_place_that_editors_understand():
    finding = Finding(Kind.FILE, Severity.ERROR, "gone", file="program.py", line=3)

    assert finding.place == "program.py:3"
    assert finding.remedy
    assert Finding(Kind.USE, Severity.NOTE, "quick").remedy == ""
