from __future__ import annotations

import functools
import importlib
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.caching.keys import KeyMaker, Program, check_cacheable, digest_of
from scheduler.core.specs import Container, Function, Script, StepSpec
from scheduler.errors import ConfigurationError
from scheduler.panda.datasets import LocalCatalogue
from scheduler.panda.idds import Site
from scheduler.runners import JobLibRunner, PanDAiDDSRunner
from scheduler.runners.base_runner import Attempt, JobEnvironment
from scheduler.runners.panda_places import GridPlace
from scheduler.testing import FakeRunner

PROGRAM = Program({"source": "s"})
HERE = JobEnvironment("here", "init", is_ours=True)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=5
)


def sim(x, y=0):
    return {"v": x + y}


def sim2(x, y=0):
    return {"v": x}


def key(arguments=None, *, program=PROGRAM, contents=None, environment=HERE):
    return digest_of(program, {} if arguments is None else arguments, contents=contents or {}, environment=environment)


def exact(value):
    """A text that differs whenever a function could see a difference; the order of mappings is none."""
    match value:
        case dict():
            return "{" + ",".join(sorted(f"{exact(name)}:{exact(each)}" for name, each in value.items())) + "}"
        case list() | tuple():
            return f"{type(value).__name__}({','.join(map(exact, value))})"
        case _:
            return repr(value)


@given(st.dictionaries(st.text(), values), st.dictionaries(st.text(), values))
def test_that_keys_are_equal_exactly_when_arguments_are(one, other):
    assert (key(one) == key(other)) == (exact(one) == exact(other))


@given(st.dictionaries(st.text(), values, min_size=2), st.randoms())
def test_that_the_order_of_arguments_does_not_matter(arguments, random):
    names = list(arguments)
    random.shuffle(names)

    assert key(arguments) == key({name: arguments[name] for name in names})


@given(values, values)
def test_that_a_change_of_any_argument_changes_the_key(one, other):
    assert (key({"x": one, "y": 1}) == key({"x": other, "y": 1})) == (exact(one) == exact(other))


@pytest.mark.parametrize(
    "different",
    [
        (0, 0.0, -0.0, False, None, "0", "", [], {}, ()),
        (1, 1.0, True, "1", [1], (1,), {"1": 1}, {1: 1}),
        ([1, 2], [2, 1], (1, 2), {"tuple": [1, 2]}, {"list": [1, 2]}, [[1, 2]]),
        ({"mapping": []}, {}, [["mapping", []]]),
        (0.1 + 0.2, 0.3),
        ("é", "e\u0301"),
        ({(("p", 1),): 2.0}, {(("p", 1.0),): 2.0}, {"None": 2.0}),
    ],
)
def test_that_values_that_a_function_can_tell_apart_have_different_keys(different):
    keys = [key({"x": value}) for value in different]

    assert len(set(keys)) == len(keys)


BASE = {
    "arguments": {"x": 1},
    "program": PROGRAM,
    "contents": {"files": ("a", "b")},
    "environment": HERE,
}


@pytest.mark.parametrize(
    ("ingredient", "changed"),
    [
        ("arguments", {"x": 2}),
        ("arguments", {"x": 1, "y": None}),
        ("program", Program({"source": "t"})),
        ("program", Program({"source": "s", "modules": {"m": "1"}})),
        ("program", Program({"source": "s"}, frozenset({"numpy"}))),
        ("contents", {}),
        ("contents", {"files": ("b", "a")}),
        ("contents", {"files": ("a",)}),
        ("contents", {"other": ("a", "b")}),
        ("environment", replace(HERE, place="there")),
        ("environment", replace(HERE, text="other")),
        ("environment", replace(HERE, is_ours=False)),
    ],
)
def test_that_a_change_of_any_ingredient_changes_the_key(ingredient, changed):
    assert key(**BASE) != key(**{**BASE, ingredient: changed})
    assert key(**BASE) == key(**BASE)


def test_that_another_version_of_python_or_of_a_package_is_another_key_only_where_jobs_run_with_it(monkeypatch):
    program = Program({}, frozenset({"numpy"}))
    there = replace(HERE, is_ours=False)
    before = key(program=program), key(program=program, environment=there)

    monkeypatch.setattr("scheduler.caching.keys._versions", lambda name: {name: "99"})
    assert key(program=program) != before[0]
    assert key(program=program, environment=there) == before[1]

    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert key(program=program) != before[0]
    assert key(program=program, environment=there) == before[1]


# ------------------------------------------------------------------------------------------------------ attempts


@pytest.fixture
def attempt(tmp_path):
    return Attempt("r-1", Function(sim), {"x": 1}, tmp_path / "trials" / "0" / "sim" / "None", cache=True)


def key_of(attempt, runner=None):
    return KeyMaker(runner or FakeRunner()).key_of(attempt)


def test_that_what_does_not_decide_the_result_is_not_in_the_key(attempt, tmp_path):
    assert key_of(attempt) == key_of(replace(attempt, label="r-2", directory=tmp_path))


def test_that_function_and_way_of_calling_are_in_the_key(attempt):
    payloads = [Function(sim), Function(sim2), Function(sim, takes_mapping=True)]
    maker = KeyMaker(FakeRunner())

    keys = {maker.key_of(replace(attempt, payload=payload)) for payload in payloads}

    assert len(keys) == 3
    assert None not in keys


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x", Path("x"), [object()]])
def test_that_arguments_without_a_sure_comparison_are_not_cached_and_a_warning_says_so_once(attempt, caplog, value):
    maker = KeyMaker(FakeRunner())

    assert [maker.key_of(replace(attempt, arguments={"x": value})) for _ in range(2)] == [None, None]
    assert caplog.text.count("sim is not cached: an argument has a value of type") == 1


def test_that_runners_that_say_nothing_about_their_environment_have_no_keys(attempt, monkeypatch):
    runner = FakeRunner()
    monkeypatch.setattr(runner, "environment", lambda: None)

    assert key_of(attempt, runner) is None


def test_that_init_env_and_the_kind_of_place_are_in_the_key(attempt):
    runners = [
        JobLibRunner(1),
        PanDAiDDSRunner(service="local"),
        PanDAiDDSRunner(service="local", init_env="source a.sh"),
        PanDAiDDSRunner(service="local", init_env="source b.sh"),
    ]

    assert len({key_of(attempt, runner) for runner in runners}) == 4


def test_that_scripts_count_by_bytes_kind_options_and_imports(attempt, tmp_path):
    (tmp_path / "a.py").write_text("import tools_of_a_script\n")
    (tmp_path / "same.py").write_text("import tools_of_a_script\n")
    (tmp_path / "same.sh").write_text("import tools_of_a_script\n")
    (tmp_path / "b.py").write_text("import tools_of_a_script  # b\n")
    script = Script(str(tmp_path / "a.py"))

    def of(payload):
        return key_of(replace(attempt, payload=payload))

    first = of(script)
    assert of(Script(str(tmp_path / "same.py"))) == first
    assert of(Script(str(tmp_path / "same.sh"))) != first
    assert of(Script(str(tmp_path / "b.py"))) != first
    assert of(replace(script, options={"n": 1})) != of(replace(script, options={"n": 1.0})) != first
    (tmp_path / "tools_of_a_script.py").write_text("")
    assert of(script) != first


def test_that_the_command_line_counts_for_a_function_of_the_program_itself(attempt, tmp_path, monkeypatch):
    program = types.ModuleType("__main__")
    program.__file__ = str(tmp_path / "program.py")
    (tmp_path / "program.py").write_text("def evaluate(x):\n    return {'v': x}\n")
    exec((tmp_path / "program.py").read_text(), vars(program))  # noqa: S102
    monkeypatch.setitem(sys.modules, "__main__", program)
    attempt = replace(attempt, payload=Function(program.evaluate))

    keys = set()
    for arguments in (["--events", "10"], ["--events", "20"], []):
        monkeypatch.setattr(sys, "argv", ["program.py", *arguments])
        keys.add(key_of(attempt))

    assert len(keys) == 3
    assert None not in keys


def test_that_what_is_not_in_the_key_is_said_once(attempt, tmp_path, caplog):
    script = tmp_path / "a.py"
    script.write_text("import importlib, nowhere_to_be_found, numpy\nimportlib.import_module('a' + 'b')\n")
    maker = KeyMaker(FakeRunner())

    assert len({maker.key_of(replace(attempt, payload=Script(str(script), {"n": n}))) for n in range(2)}) == 2
    assert caplog.text.count("a.py:2 imports what only a run can tell: that is no part of the key") == 1
    assert caplog.text.count("imports 'nowhere_to_be_found', which is not found here: that is no part") == 1
    assert "numpy" not in caplog.text


def test_that_containers_count_by_image_command_and_options(attempt):
    payloads = [Container("i"), Container("j"), Container("i", "c"), Container("i", options={"o": 1})]
    maker = KeyMaker(FakeRunner())

    assert len({maker.key_of(replace(attempt, payload=payload)) for payload in payloads}) == 4


@pytest.mark.parametrize("changed", ["objective_of_the_key_test.py", "helper_of_the_key_test.py"])
def test_that_a_file_that_changes_while_the_program_runs_is_not_cached_any_more(
    attempt, tmp_path, monkeypatch, caplog, changed
):
    (tmp_path / "helper_of_the_key_test.py").write_text("N = 1\n")
    source = tmp_path / "objective_of_the_key_test.py"
    source.write_text("import helper_of_the_key_test\ndef evaluate(x):\n    return {'v': x}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(source.stem)
    attempt = replace(attempt, payload=Function(module.evaluate))
    maker = KeyMaker(FakeRunner())
    assert maker.key_of(attempt) is not None

    (tmp_path / changed).write_text("# another one\n" + (tmp_path / changed).read_text())

    assert maker.key_of(attempt) is None, "jobs may run the old or the new one"
    assert KeyMaker(FakeRunner()).key_of(attempt) is None, "the old one is still in memory"
    with pytest.raises(OSError, match="was changed after this program began"):
        maker.check_unchanged(attempt.payload)
    assert f"{changed} was changed after this program began" in caplog.text
    del sys.modules[source.stem], sys.modules["helper_of_the_key_test"]


# ------------------------------------------------------------------------------------------------------ datasets


def write_dataset(root, name, *texts):
    catalogue = LocalCatalogue(root)
    files = []
    for index, text in enumerate(texts):
        files.append(root.parent / f"{index}.txt")
        files[-1].write_text(text)
    catalogue.create(name)
    catalogue.add_numbered(name, files, name="out.txt", producer="p")
    catalogue.close(name)


def test_that_input_datasets_count_by_the_contents_of_their_files_not_by_names(attempt, tmp_path):
    root = tmp_path / "datasets"
    write_dataset(root, "user.a.one", "131", "x")
    write_dataset(root, "user.a.same", "131", "x")
    write_dataset(root, "user.a.other", "212", "x")  # with the size and the Adler-32 of the first
    runner = JobLibRunner(1, config={"catalogue_dir": root})

    def of(name):
        return key_of(replace(attempt, inputs={"files": name}), runner)

    assert of("user.a.one") == of("user.a.same")
    assert len({of("user.a.one"), of("user.a.other"), key_of(attempt, runner)}) == 3


def test_that_a_dataset_that_is_not_there_or_has_no_digests_is_not_cached(attempt, tmp_path, caplog, monkeypatch):
    runner = JobLibRunner(1, config={"catalogue_dir": tmp_path / "datasets"})
    reader = replace(attempt, inputs={"files": "user.a.nothing"})

    assert key_of(reader, runner) is None
    assert "unknown in" in caplog.text
    assert key_of(replace(reader, follows="native"), runner) is None

    monkeypatch.setattr("scheduler.panda.datasets.LocalCatalogue.digests", lambda self, name: None)
    assert key_of(reader, runner) is None
    assert "no checksums that tell all contents apart" in caplog.text


def test_that_datasets_of_the_grid_are_not_cached(attempt):
    place = GridPlace("panda", Site("c", "q", "v", "", False), prefix=None, capacity=None, on_change=list)

    assert place.contents(replace(attempt, inputs={"files": "user.a.b"})) is None


# ------------------------------------------------------------------------------------------------- what is refused


def outer():
    def inner(x):
        return {"v": x}

    return inner


class Simulation:
    def __call__(self, x):
        return {"v": x}

    def method(self, x):
        return {"v": x}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: {"v": x}, "lambda"),
        (functools.partial(sim, y=2), "partial"),
        (outer(), "inside another function"),
        (Simulation(), "__call__"),
        (Simulation().method, "method of the object"),
        (len, "no file"),
    ],
)
def test_that_functions_that_carry_more_than_their_source_are_refused(call, word):
    with pytest.raises(ConfigurationError, match=f"step 'sim' has cache=True, but .*{word}"):
        check_cacheable(StepSpec("sim", Function(call), "r", cache=True), FakeRunner())


def test_that_a_function_typed_into_an_interpreter_is_refused(monkeypatch):
    module = types.ModuleType("typed_in")
    exec("def evaluate(x):\n    return {'v': x}", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "typed_in", module)

    with pytest.raises(ConfigurationError, match="typed into an interpreter or notebook"):
        check_cacheable(StepSpec("sim", Function(module.evaluate), "r", cache=True), FakeRunner())


def test_that_a_runner_that_says_nothing_about_its_jobs_is_refused(monkeypatch):
    runner = FakeRunner()
    monkeypatch.setattr(runner, "environment", lambda: None)

    with pytest.raises(ConfigurationError, match="does not say what the results"):
        check_cacheable(StepSpec("sim", Function(sim), "r", cache=True), runner)
