"""The worker's file, called directly: results, errors, loading."""

import ast
import json
import math
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from scheduler import worker


class Shade(str, Enum):  # noqa: UP042 - the kind of enumeration that older programs return
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(2.5), 2.5),
        (np.str_("name"), "name"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"a": {"b": np.arange(2)}}, {"a": {"b": [0, 1]}}),
        (Shade.RED, "red"),
        (None, None),
        (True, True),
    ],
    ids=repr,
)
def test_that_results_become_plain_json_types(value, expected):
    plain = worker.to_json_types(value)

    assert plain == expected
    assert type(plain) is type(expected)
    assert json.loads(json.dumps(plain)) == expected


def test_that_anything_that_behaves_like_an_array_becomes_a_list():
    class Tensor:
        dtype = "float32"

        def tolist(self):
            return [1.0, 2.0]

    assert worker.to_json_types({"x": Tensor()}) == {"x": [1.0, 2.0]}


def test_that_nan_and_infinity_are_passed_on():
    plain = worker.to_json_types({"x": float("nan"), "y": np.float64("-inf")})

    assert math.isnan(plain["x"])
    assert plain["y"] == -math.inf


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, {2, 3}]}, ["result['a'][1]", "set"]),
        ({"a": {1: 2}}, ["result['a']", "key 1", "int"]),
        (1j, ["result", "complex"]),
        ({"when": np.datetime64("2024-01-01")}, ["result['when']", "date"]),
        ({"when": np.longdouble(1)}, ["result['when']", "longdouble"]),
        (object(), ["result", "object"]),
        (print, ["result", "builtin_function_or_method"]),
    ],
    ids=["set", "key", "complex", "date", "longdouble", "object", "function"],
)
def test_that_what_json_cannot_express_is_refused_by_place_and_type(value, words):
    with pytest.raises(worker.UnsuitableResultError) as refusal:
        worker.to_json_types(value)

    assert all(word in str(refusal.value) for word in words)


def test_that_a_result_that_contains_itself_is_refused():
    def circle():
        result = {}
        result["me"] = result
        return result

    with pytest.raises(worker.UnsuitableResultError, match="contains itself"):
        worker.run_function(circle, {})


def test_that_a_missing_file_of_the_start_directory_is_pointed_out(tmp_path, monkeypatch):
    (tmp_path / "field.map").touch()
    monkeypatch.setenv(worker.START_DIRECTORY_VARIABLE, str(tmp_path))
    error = FileNotFoundError(2, "No such file or directory", "field.map")

    facts = worker.describe_error(error)

    assert f"there is one in {tmp_path}" in facts["message"]
    assert "absolute path" in facts["message"]


def test_that_a_file_that_is_missing_everywhere_gets_no_hint(tmp_path, monkeypatch):
    monkeypatch.setenv(worker.START_DIRECTORY_VARIABLE, str(tmp_path))

    facts = worker.describe_error(FileNotFoundError(2, "No such file or directory", "field.map"))

    assert facts["message"] == "[Errno 2] No such file or directory: 'field.map'"


def test_that_leaving_the_program_is_described_with_its_code():
    assert worker.describe_error(SystemExit(3))["message"] == "the function ended its program with exit code 3"


def test_that_an_exception_whose_text_raises_is_still_described():
    class Nasty(Exception):  # noqa: N818
        def __str__(self):
            raise RuntimeError("no text for you")

    facts = worker.describe_error(Nasty())

    assert (facts["exception"], facts["message"]) == ("Nasty", "(its message cannot be shown: RuntimeError)")


def shipped(root, text, *, file="prog.py", qualname="objective"):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    module = file.removesuffix(".py").replace("/", ".")
    return {"kind": "shipped", "root": str(root), "file": file, "module": module, "qualname": qualname}


@pytest.fixture
def clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.mark.usefixtures("clean_imports")
def test_that_a_shipped_function_is_loaded_from_its_file_with_its_siblings(tmp_path):
    (tmp_path / "detector_sizes.py").write_text("LENGTH = 7\n")
    target = shipped(tmp_path, "import detector_sizes\nclass A:\n    def f():\n        return detector_sizes.LENGTH\n")

    function = worker.load_target({**target, "qualname": "A.f"})

    assert function() == 7
    assert function.__module__ == "prog"


@pytest.mark.usefixtures("clean_imports")
def test_that_a_module_is_imported_once_for_all_its_functions(tmp_path):
    target = shipped(tmp_path, "import random\nmark = random.random()\ndef f(): return mark\ndef g(): return mark\n")

    f, g = (worker.load_target({**target, "qualname": name}) for name in "fg")

    assert f() == g()


@pytest.mark.usefixtures("clean_imports")
def test_that_the_file_being_imported_is_told_in_the_environment_and_only_then(tmp_path):
    text = f"import os\nseen = os.environ.get({worker.IMPORTING_VARIABLE!r})\ndef objective(): return seen\n"

    function = worker.load_target(shipped(tmp_path, text, file="lib/prog.py"))

    assert function() == "lib/prog.py"
    assert worker.IMPORTING_VARIABLE not in os.environ


@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("import not_there_at_all\n", "ModuleNotFoundError", "not_there_at_all"),
        ("def other(): pass\n", "AttributeError", "objective"),
        ("def objective(:\n", "SyntaxError", "prog.py"),
        ("import sys\nsys.exit(4)\n", "SystemExit", "exit code 4"),
    ],
)
def test_that_a_file_that_cannot_be_loaded_is_a_trouble_of_the_environment(tmp_path, text, kind, word):
    with pytest.raises(worker.LoadError) as refusal:
        worker.load_target(shipped(tmp_path, text))
    facts = worker.describe_error(refusal.value)

    assert (facts["cause"], facts["exception"]) == ("environment", kind)
    assert word in facts["message"]
    assert "prog" not in sys.modules or not hasattr(sys.modules["prog"], "objective")


@pytest.mark.usefixtures("clean_imports")
def test_that_a_missing_module_is_named_for_programs(tmp_path):
    with pytest.raises(worker.LoadError) as refusal:
        worker.load_target(shipped(tmp_path, "from not_there.at_all import x\n"))

    assert worker.describe_error(refusal.value)["module"] == "not_there"


def test_that_the_worker_is_written_in_old_python_and_needs_nothing_of_ours():
    text = Path(worker.__file__).read_text(encoding="utf-8")

    tree = ast.parse(text, feature_version=(3, 7))

    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_that_the_worker_explains_how_it_is_called():
    done = subprocess.run([sys.executable, worker.__file__, "fly"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "worker.py pilot" in done.stderr
