import pytest

from scheduler.caching.sources import trace


@pytest.fixture
def project(tmp_path):
    """Writes a project and says which of its modules count, and which installed packages."""

    def write(main, package="", **others):
        files = {"main.py": main, **{name.replace("__dot__", "."): text for name, text in others.items()}}
        for name, text in files.items():
            path = tmp_path / name.replace("__slash__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found = trace(tmp_path / "main.py", package=package, path=[str(tmp_path)])
        for name, path in found.modules.items():
            assert path.is_relative_to(tmp_path), name
        return found

    return write


PACKAGE = {
    "p__slash____init____dot__py": "",
    "p__slash__a__dot__py": "from . import b\nfrom .deep.c import x\n",
    "p__slash__b__dot__py": "VALUE = 1\n",
    "p__slash__deep__slash____init____dot__py": "from ..other import y\n",
    "p__slash__deep__slash__c__dot__py": "x = 1\n",
    "p__slash__other__dot__py": "y = 1\n",
    "p__slash__unused__dot__py": "",
}


@pytest.mark.parametrize(
    ("main", "modules"),
    [
        ("import p.b", {"p", "p.b"}),
        ("import p.b as short", {"p", "p.b"}),
        ("from p import b", {"p", "p.b"}),
        ("from p.b import VALUE", {"p", "p.b"}),
        ("from p.b import *", {"p", "p.b"}),
        ("import p.a", {"p", "p.a", "p.b", "p.deep", "p.deep.c", "p.other"}),
        ("def f():\n    import p.b", {"p", "p.b"}),
        ("import importlib\nimportlib.import_module('p.b')", {"p", "p.b"}),
        ("__import__('p.b')", {"p", "p.b"}),
        ("import json, os.path\nfrom collections import abc", set()),
        ("from . import nowhere", set()),
    ],
)
def test_that_imports_of_the_project_are_followed(project, main, modules):
    found = project(main, **PACKAGE)

    assert found.modules.keys() == modules
    assert not found.installed


def test_that_a_circle_of_imports_ends(project):
    found = project("import one", one__dot__py="import two", two__dot__py="import one, main")

    assert found.modules.keys() == {"one", "two", "main"}


def test_that_namespace_packages_and_modules_that_hide_the_standard_library_are_found(project):
    found = project("import space.inner\nimport calendar", space__slash__inner__dot__py="", calendar__dot__py="")

    assert found.modules.keys() == {"space.inner", "calendar"}


def test_that_installed_and_missing_packages_are_named_and_ours_is_left_out(project):
    found = project("import yaml, numpy.linalg\nimport scheduler.core\nfrom nowhere.to import be_found\nimport json")

    assert found.installed == {"yaml", "numpy", "nowhere"}
    assert not found.modules


def test_that_relative_imports_of_the_main_file_count_from_its_package(project):
    found = project("from .b import VALUE", package="p", **PACKAGE)

    assert found.modules.keys() == {"p", "p.b"}


@pytest.mark.parametrize("main", ["import importlib\nname = 'x'\nimportlib.import_module(name)", "def ("])
def test_that_what_cannot_be_told_without_running_is_named(project, main):
    (place,) = project(main).unclear

    assert "main.py" in place


def test_that_an_editable_install_that_is_not_on_the_path_is_the_users_own(project, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere" / "editable"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("from . import part")
    (elsewhere / "part.py").write_text("")
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    import editable  # noqa: F401

    assert project("import editable").modules.keys() == {"editable", "editable.part"}
