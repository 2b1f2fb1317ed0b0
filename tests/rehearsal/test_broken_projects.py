"""A corpus of projects that work at home and would fail on the grid: each is caught, with its line if it has one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.rehearsal.conftest import GUARD, OBJECTIVE, line_of, program_text

from scheduler.rehearsal import Kind, Severity


def errors_of(outcome):
    return [finding for finding in outcome.findings if finding.severity is Severity.ERROR]


def the_error(outcome):
    (error,) = errors_of(outcome)
    return error


def warnings_of(outcome, kind):
    return [each for each in outcome.findings if each.severity is Severity.WARNING and each.kind is kind]


def place_of(finding):
    return finding.file, finding.line


# How the function is found ----------------------------------------------------------------------------------------


def test_that_a_missing_main_guard_is_found(project):
    text = program_text(guard="")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.GUARD
    assert place_of(error) == ("program.py", line_of(text, "scheduler = AxScheduler("))


@pytest.mark.parametrize(
    ("functions", "objective", "words"),
    [
        ("", "lambda x: {'loss': x}", "is a lambda"),
        (
            "def make():\n    def nested(x):\n        return {'loss': x}\n    return nested",
            "make()",
            "another function",
        ),
        ("import functools\ndef f(x, y):\n    return {'loss': x}", "functools.partial(f, y=1)", "is a partial"),
        ("class F:\n    def run(self, x):\n        return {'loss': x}", "F().run", "is a method of the object"),
    ],
)
def test_that_a_function_that_cannot_be_imported_is_found(project, functions, objective, words):
    text = program_text(functions, objective=objective)
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.SHIPPING
    assert words in error.message
    assert place_of(error) == ("program.py", line_of(text, "set_objective_function"))


# What it imports --------------------------------------------------------------------------------------------------


def test_that_a_module_that_a_pattern_takes_is_found(project):
    text = program_text(imports="import catalog", runner="exclude_source_files=['.*log']")
    project.write("program.py", text)
    project.write("catalog.py")

    outcome = project.rehearse()

    error = the_error(outcome)
    assert error.kind is Kind.IMPORT
    assert "catalog.py is taken by the exclude pattern '.*log'" in error.message
    assert place_of(error) == ("program.py", line_of(text, "import catalog"))
    (warning,) = warnings_of(outcome, Kind.SHIPPING)
    assert warning.file == "catalog.py"


def test_that_a_module_beside_the_source_directory_is_found(project, monkeypatch):
    library = project.top / "library"
    library.mkdir()
    (library / "mytools.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{library}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    text = program_text(imports=f"import sys\nif {str(library)!r} in os.environ['PYTHONPATH']:\n    sys.path.append("
                        f"{str(library)!r})\nimport mytools")  # fmt: skip
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.IMPORT
    assert "mytools" in error.message
    assert str(library) in error.message
    assert place_of(error) == ("program.py", line_of(text, "import mytools"))


def test_that_a_module_beside_a_function_further_down_is_found(project):
    steps = "import helper\ndef objective(x):\n    return {'loss': x}\n"
    project.write("steps/sim.py", steps)
    project.write("steps/helper.py")
    project.write(
        "program.py",
        program_text("", imports="import sys", objective="load()").replace(
            "def main",
            "def load():\n    sys.path.insert(0, 'steps')\n    import sim\n    return sim.objective\n\n\ndef main",
        ),
    )

    error = the_error(project.rehearse())

    assert error.kind is Kind.IMPORT
    assert "steps/helper.py" in error.message
    assert place_of(error) == ("steps/sim.py", 1)


def test_that_a_module_inside_a_function_is_found(project):
    text = program_text("def objective(x):\n    import calibrations\n    return {'loss': x}",
                        runner="exclude_source_files=['calibrations.py']")  # fmt: skip
    project.write("program.py", text)
    project.write("calibrations.py")

    error = the_error(project.rehearse())

    assert error.kind is Kind.IMPORT
    assert place_of(error) == ("program.py", line_of(text, "import calibrations"))
    assert error.step == "objective"


def test_that_a_search_path_of_this_machine_is_found_although_the_import_works_here(project):
    library = project.top / "library"
    library.mkdir()
    (library / "mytools.py").write_text("")
    text = program_text(imports=f"import sys\nsys.path.append({str(library)!r})\nimport mytools")
    project.write("program.py", text)

    outcome = project.rehearse()

    found = [each for each in errors_of(outcome) if each.line == line_of(text, "import mytools")]
    assert {each.kind for each in found} == {Kind.PATH}
    assert any(str(library) in each.message for each in found)


# What it reads ----------------------------------------------------------------------------------------------------


def test_that_a_data_file_that_a_pattern_takes_is_found(project):
    text = program_text("def objective(x):\n    return {'loss': x + float(open('data/field.txt').read())}",
                        runner="exclude_source_files=['data']")  # fmt: skip
    project.write("program.py", text)
    project.write("data/field.txt", "1.0")

    error = the_error(project.rehearse())

    assert error.kind is Kind.FILE
    assert "data is taken by the exclude pattern 'data'" in error.message
    assert place_of(error) == ("program.py", line_of(text, "field.txt"))


def test_that_a_missing_file_is_found_although_the_function_goes_on_without_it(project):
    function = (
        "def objective(x):\n    try:\n        shift = float(open('shift.txt').read())\n"
        "    except OSError:\n        shift = 0.0\n    return {'loss': x + shift}"
    )
    text = program_text(function, runner="exclude_source_files=['shift.txt']")
    project.write("program.py", text)
    project.write("shift.txt", "1.0")

    error = the_error(project.rehearse())

    assert error.kind is Kind.FILE
    assert "'shift.txt'" in error.message
    assert place_of(error) == ("program.py", line_of(text, "open('shift.txt')"))


def test_that_an_absolute_path_of_this_machine_is_found_although_it_can_be_read_here(project):
    (project.top / "field.txt").write_text("1.0")
    text = program_text(
        f"def objective(x):\n    return {{'loss': x + float(open({str(project.top / 'field.txt')!r}).read())}}"
    )
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.PATH
    assert str(project.top / "field.txt") in error.message
    assert place_of(error) == ("program.py", line_of(text, "field.txt"))
    assert error.step == "objective"


def test_that_a_shipped_file_opened_where_it_lies_at_home_is_found(project):
    path = project.write("field.txt", "1.0")
    text = program_text(f"def objective(x):\n    return {{'loss': x + float(Path({str(path)!r}).read_text())}}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.PATH
    assert place_of(error) == ("program.py", line_of(text, "field.txt"))


def test_that_a_file_above_the_source_directory_is_found(project):
    (project.top / "shared.txt").write_text("1.0")
    text = program_text("def objective(x):\n    return {'loss': x + float(open('../shared.txt').read())}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.FILE
    assert str(project.top / "shared.txt") in error.message
    assert place_of(error) == ("program.py", line_of(text, "shared.txt"))


def test_that_a_file_of_the_home_directory_is_found(project, monkeypatch):
    home = project.top / "home"
    home.mkdir()
    (home / ".settings").write_text("1.0")
    monkeypatch.setenv("HOME", str(home))
    text = program_text("def objective(x):\n    return {'loss': float(Path('~/.settings').expanduser().read_text())}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.FILE
    assert str(home / ".settings") in error.message
    assert place_of(error) == ("program.py", line_of(text, ".settings"))


def test_that_a_program_of_this_machine_is_found(project):
    tool = project.top / "simulate"
    tool.write_text("#!/bin/sh\necho 1.0\n")
    tool.chmod(0o755)
    text = program_text(
        f"import subprocess\ndef objective(x):\n    return {{'loss': float(subprocess.check_output([{str(tool)!r}]))}}"
    )
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.PATH
    assert f"runs {tool}" in error.message
    assert place_of(error) == ("program.py", line_of(text, "check_output"))


# What it writes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["{top}/kept.txt", "../kept.txt"])
def test_that_writing_outside_the_working_directory_is_found(project, target):
    path = target.format(top=project.top)
    text = program_text(f"def objective(x):\n    Path({path!r}).write_text('kept')\n    return {{'loss': x}}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.WRITE
    assert path in error.message
    assert place_of(error) == ("program.py", line_of(text, "write_text"))


def test_that_writing_into_the_home_directory_is_a_warning(project):
    text = program_text("def objective(x):\n    Path.home().joinpath('.cache').mkdir()\n    return {'loss': x}")
    project.write("program.py", text)

    outcome = project.rehearse()

    assert errors_of(outcome) == []
    (warning,) = warnings_of(outcome, Kind.WRITE)
    assert place_of(warning) == ("program.py", line_of(text, ".cache"))


def test_that_temporary_files_and_the_working_directory_are_no_findings(project):
    function = (
        "import tempfile\ndef objective(x):\n    Path('here.txt').write_text('1')\n"
        "    with tempfile.TemporaryDirectory() as place:\n        Path(place, 'a').write_text('1')\n"
        "        Path(place, 'a').read_text()\n    with tempfile.NamedTemporaryFile() as file:\n"
        "        file.write(b'1')\n    return {'loss': x}"
    )
    project.write("program.py", program_text(function))

    outcome = project.rehearse()

    assert [each for each in outcome.findings if each.severity is not Severity.NOTE] == []


def test_that_a_missing_output_file_is_found(project):
    text = program_text("def sim(x):\n    Path('wrong_name.txt').write_text('hits')\n    return {'loss': x}").replace(
        "set_objective_function(objective)",
        "set_objective_function(MultiStepsFunction({'sim': {'func': sim, 'with_output_dataset': True, 'output_file': "
        "'hits.txt', 'output_dataset': 'user.alice.hits.#trial_id'}}, final='sim'))",
    )
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.OUTPUT
    assert error.step == "sim"
    assert "'hits.txt'" in error.message
    assert "wrong_name.txt" in error.message


# Its surroundings and limits --------------------------------------------------------------------------------------


def test_that_a_variable_of_this_machine_is_found(project, monkeypatch):
    monkeypatch.setenv("DETECTOR_HOME", "/opt/detector")
    text = program_text("def objective(x):\n    return {'loss': x + len(os.environ['DETECTOR_HOME'])}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.VARIABLE
    assert "DETECTOR_HOME" in error.message
    assert place_of(error) == ("program.py", line_of(text, "DETECTOR_HOME"))


def test_that_a_variable_with_a_default_is_a_warning_and_one_that_init_env_sets_is_none(project, monkeypatch):
    monkeypatch.setenv("DETECTOR_HOME", "/opt/detector")
    monkeypatch.setenv("FIELD_MAP", "/opt/field")
    text = program_text(
        "def objective(x):\n    os.getenv('FIELD_MAP', '')\n    return {'loss': x + len(os.environ['DETECTOR_HOME'])}",
        runner="init_env='export DETECTOR_HOME=$PWD'",
    )
    project.write("program.py", text)

    outcome = project.rehearse()

    assert errors_of(outcome) == []
    (warning,) = warnings_of(outcome, Kind.VARIABLE)
    assert "FIELD_MAP" in warning.message
    assert place_of(warning) == ("program.py", line_of(text, "FIELD_MAP"))


@pytest.mark.parametrize(
    ("limit", "body", "words"),
    [
        ("max_walltime=5", "__import__('time').sleep(600)", "walltime_s=5"),
        ("total_memory=100", "keep = b'x' * 200_000_000; __import__('time').sleep(600)", "memory_mb=100"),
    ],
)
def test_that_a_job_over_its_limits_is_found(project, limit, body, words):
    project.write("program.py", program_text(f"def objective(x):\n    {body}", runner=limit))

    error = the_error(project.rehearse())

    assert error.kind is Kind.LIMIT
    assert words in error.message


def test_that_a_source_directory_above_the_limit_is_found_with_the_biggest_files(project):
    text = program_text()
    project.write("program.py", text)
    project.write("events.root", size=800 * 1024 * 1024)

    error = the_error(project.rehearse())

    assert error.kind is Kind.SHIPPING
    assert "events.root (800 MB)" in error.message
    assert place_of(error) == ("program.py", line_of(text, "set_objective_function"))


def test_that_a_large_source_directory_is_a_warning_with_the_biggest_files(project):
    project.write("program.py", program_text())
    project.write("events.root", size=101 * 1024 * 1024)

    outcome = project.rehearse()

    assert errors_of(outcome) == []
    (warning,) = warnings_of(outcome, Kind.SIZE)
    assert "events.root (101 MB)" in warning.message


def test_that_a_line_of_init_env_that_fails_is_noted(project):
    project.write("program.py", program_text(runner="init_env=['source /nowhere/setup.sh', 'export A=1']"))

    outcome = project.rehearse()

    assert not outcome.would_fail
    (note,) = [each for each in outcome.findings if each.kind is Kind.COVERAGE]
    assert "source /nowhere/setup.sh" in note.message


# The program itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        ("max_walltime=-1", "max_walltime"),
        ("source_dir='nowhere'", "'nowhere'"),
        ("exclude_source_files=['*.log']", "*.log"),
    ],
)
def test_that_a_wrong_argument_is_found(project, runner, words):
    text = program_text(runner=runner)
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.CONFIGURATION
    assert words in error.message
    assert place_of(error) == ("program.py", line_of(text, "PanDAiDDSRunner("))


def test_that_a_link_that_leads_nowhere_is_found(project):
    text = program_text()
    project.write("program.py", text)
    (project.directory / "geometry").symlink_to("/nowhere/geometry")

    error = the_error(project.rehearse())

    assert error.kind is Kind.SHIPPING
    assert place_of(error) == ("program.py", line_of(text, "set_objective_function"))
    assert "/nowhere/geometry" in error.message


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [("return {'loss': 1 / 0}", Kind.FAILURE, "ZeroDivisionError"), ("return {'lost': x}", Kind.RESULT, "loss")],
)
def test_that_a_function_that_fails_is_found(project, body, kind, words):
    text = program_text(f"def objective(x):\n    {body}")
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is kind
    assert words in error.message
    if kind is Kind.FAILURE:
        assert place_of(error) == ("program.py", line_of(text, "1 / 0"))


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("print('nothing to optimize')\n", "without having run a trial", None),
        ("import sys\nsys.exit('no beam')\n", "no beam", None),
        ("\nraise RuntimeError('no beam')\n", "RuntimeError: no beam", 2),
        ("def f(:\n", "SyntaxError", 1),
    ],
)
def test_that_a_program_that_never_comes_to_a_trial_is_found(project, text, words, line):
    project.write("program.py", text)

    error = the_error(project.rehearse())

    assert error.kind is Kind.PROGRAM
    assert words in error.message
    assert error.line == line


def test_that_steps_behind_a_failed_one_are_reported_as_not_rehearsed(project):
    text = program_text(
        "def sim(x):\n    raise ValueError('no beam')\ndef end(x, hits):\n    return {'loss': x}"
    ).replace(
        "set_objective_function(objective)",
        "set_objective_function(MultiStepsFunction({'sim': {'func': sim}, 'end': {'func': end, "
        "'parent_result_parameter_name': 'hits'}}, deps={'end': 'sim'}, final='end'))",
    )
    project.write("program.py", text)

    outcome = project.rehearse()

    assert the_error(outcome).step == "sim"
    (warning,) = warnings_of(outcome, Kind.COVERAGE)
    assert warning.step == "end"


# Sound projects ---------------------------------------------------------------------------------------------------


def test_that_a_sound_project_has_no_findings_and_its_use_is_told_beside_the_limits(project):
    project.write("program.py", program_text(runner="service='panda', max_walltime=600, total_memory=900"))

    outcome = project.rehearse()

    assert not outcome.would_fail
    assert {each.severity for each in outcome.findings} == {Severity.NOTE}
    used = [each for each in outcome.findings if each.kind is Kind.USE and each.step == "objective"]
    assert len(used) == 1
    assert "of 600 s" in used[0].message
    assert "of 900 MB" in used[0].message
    assert not (project.directory / "scheduler_runs").exists()


def test_that_a_file_named_like_a_result_which_the_job_writes_is_not_the_end_of_the_job(project):
    functions = (
        "import time\n\n\ndef objective(x):\n    Path('result.json').write_text('{}')\n    time.sleep(0.5)\n"
        "    return {'loss': x}"
    )
    project.write("program.py", program_text(functions, runner="service='panda', max_walltime=600"))

    outcome = project.rehearse()

    (used,) = [each for each in outcome.findings if each.kind is Kind.USE and each.step == "objective"]
    assert used.message.startswith("1 job at most")
    assert float(re.search(r"([\d.]+) of 600 s", used.message)[1]) >= 0.5


def test_that_one_trial_runs_whatever_the_program_asks_for(project):
    text = program_text().replace(
        "scheduler.run_optimization(max_trials=20)",
        "with scheduler.batch_trial_context() as batch:\n        for x in (0.1, 0.2, 0.3):\n"
        "            batch.add_trial({'x': x})",
    )
    project.write("program.py", text)

    outcome = project.rehearse()

    assert not outcome.would_fail
    assert [path.name for path in (outcome.directory / "run" / "trials").iterdir()] == ["0"]


def test_that_a_program_that_catches_everything_is_rehearsed_all_the_same(project):
    text = program_text().replace(
        "    scheduler.run_optimization(max_trials=20)",
        "    try:\n        scheduler.run_optimization(max_trials=20)\n    except BaseException as error:\n"
        "        print(error)",
    )
    project.write("program.py", text)

    outcome = project.rehearse()

    assert not outcome.would_fail
    assert any(each.kind is Kind.USE and each.step == "objective" for each in outcome.findings)


def test_that_a_rehearsal_inside_the_source_directory_does_not_ship(project):
    project.write("program.py", program_text())
    project.top = project.directory

    outcome = project.rehearse()

    (shipped,) = [each for each in outcome.findings if each.kind is Kind.SHIPPING]
    assert "1 file of" in shipped.message
    assert "rehearsal is a run directory" in shipped.message


def test_that_the_texts_above_are_one_program_with_one_guard():
    assert program_text().count(GUARD) == 1
    assert OBJECTIVE in program_text()
    assert Path(__file__).parent.name == "rehearsal"


def test_that_a_gate_is_no_failure_and_the_steps_behind_it_are_said_to_be_unrehearsed(project):
    functions = (
        "from scheduler import Infeasible\n\n\ndef check(x):\n    raise Infeasible('too heavy')\n\n\n"
        "def end(x, loss):\n    return {'loss': loss}"
    )
    steps = (
        "MultiStepsFunction({'check': {'func': check}, 'end': {'func': end, 'parent_result_parameter_name': 'loss'}}, "
        "deps={'end': 'check'})"
    )
    project.write("program.py", program_text(functions, objective=steps))

    outcome = project.rehearse()

    assert errors_of(outcome) == []
    (warning,) = warnings_of(outcome, Kind.COVERAGE)
    assert warning.step == "end"
    assert "design is infeasible" in warning.message
