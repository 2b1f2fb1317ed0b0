import functools
import importlib
import math
import runpy
import sys

import pytest

from scheduler.errors import ShippingError
from scheduler.panda.exclusion import parse_exclusions
from scheduler.panda.locate import FunctionLocation, locate
from scheduler.panda.selection import select_files

FUNCTIONS = """
import functools

def objective(x): return x

class Detector:
    @staticmethod
    def resolve(x): return x
    @classmethod
    def build(cls, x): return x
    def measure(self, x): return x
    def __call__(self, x): return x

def decorate(f):
    @functools.wraps(f)
    def around(*args): return f(*args)
    return around

@decorate
def decorated(x): return x

def outer():
    def inner(x): return x
    return inner

renamed = decorate(objective)
by_lambda = lambda x: x
"""


@pytest.fixture
def module(program):
    return program.load("deep/er/sim.py", FUNCTIONS)


def test_that_a_function_is_found_by_the_path_of_its_file(program, module):
    location = locate(module.objective, select_files(program.directory))
    assert location == FunctionLocation("deep/er/sim.py", "deep.er.sim", "objective")


@pytest.mark.parametrize("name", ["Detector.resolve", "Detector.build", "decorated"])
def test_that_whatever_has_a_name_in_the_module_is_found(program, module, name):
    function = functools.reduce(getattr, name.split("."), module)
    assert locate(function, select_files(program.directory)).qualname == name


@pytest.mark.parametrize(
    ("take", "complaint"),
    [
        (lambda m: m.by_lambda, "is a lambda.*define it with 'def'"),
        (lambda m: m.outer(), "defined inside another function.*top of its file"),
        (lambda m: functools.partial(m.objective, 1), "is a partial.*define a function"),
        (lambda m: m.Detector().measure, "method of the object"),
        (lambda m: m.Detector(), "object with __call__"),
        (lambda m: m.renamed, "is not the function that was given"),
        (lambda m: len, "is in no file"),
        (lambda m: math.sin, "is in no file|no .py file"),
    ],
)
def test_that_what_has_no_name_to_import_is_refused_with_what_to_do(program, module, take, complaint):
    with pytest.raises(ShippingError, match=complaint):
        locate(take(module), select_files(program.directory))


def test_that_a_function_outside_the_source_directory_is_refused_naming_both(program, module, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ShippingError, match=r"deep/er/sim\.py, which is outside the source directory .*/other"):
        locate(module.objective, select_files(tmp_path / "other"))


@pytest.mark.parametrize(("pattern", "what"), [("d.*", "deep is taken"), (r"s.*\.py", r"deep/er/sim\.py is taken")])
def test_that_a_function_whose_file_is_excluded_is_refused_naming_the_pattern(program, module, pattern, what):
    with pytest.raises(ShippingError, match=f"does not ship: {what} by the exclude pattern '"):
        locate(module.objective, select_files(program.directory, parse_exclusions([pattern])))


def test_that_a_file_reached_through_a_link_is_found_under_the_name_under_which_it_ships(program, tmp_path):
    program.write("sim.py", FUNCTIONS)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "linked.py").symlink_to(program.directory / "sim.py")
    module = program.load("sim.py")
    assert locate(module.objective, select_files(tmp_path / "source")).file == "linked.py"


def test_that_functions_of_the_main_program_are_found_in_its_file(program, monkeypatch):
    path = program.write("prog.py", "def objective(x): return x\n")
    namespace = runpy.run_path(str(path))
    main = importlib.util.module_from_spec(importlib.util.spec_from_file_location("__main__", path))
    main.__dict__.update(namespace, __name__="__main__", __file__=str(path))
    namespace["objective"].__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert locate(main.objective, select_files(program.directory)) == FunctionLocation("prog.py", "prog", "objective")


def test_that_a_function_typed_into_an_interpreter_is_refused(program, monkeypatch):
    main = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("__main__", None))
    exec("def objective(x): return x", main.__dict__)  # noqa: S102 - as an interpreter does
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(ShippingError, match="typed into an interpreter or notebook"):
        locate(main.objective, select_files(program.directory))
