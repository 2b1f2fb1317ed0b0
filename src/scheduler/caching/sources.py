"""Which files a Python program is made of: the file itself and what it imports, seen without running anything.

A module that lies on ``sys.path`` but not in the standard library or in ``site-packages`` is the user's own: it counts
by its content, and so does what it imports in turn. An installed package counts by its version.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_SUFFIXES = (*EXTENSION_SUFFIXES, ".py")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_OURS = "scheduler"
_IMPORTING = frozenset({"import_module", "__import__"})


@dataclass(frozen=True, slots=True)
class Sources:
    """What a program is made of.

    Attributes:
        main: The file that it begins with.
        modules: The user's own modules that it imports, directly or not: dotted name -> file.
        installed: Top-level names of the other modules that it imports, without the standard library.
        unclear: Places where it imports what only a run can tell, as ``file:line``, and files that cannot be read.
    """

    main: Path
    modules: dict[str, Path] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    unclear: list[str] = field(default_factory=list)


def trace(main: Path, *, package: str = "", path: Sequence[str] | None = None) -> Sources:
    """Follow the imports of a Python file.

    Args:
        main: The file.
        package: The package that it belongs to, for its relative imports.
        path: Where modules are looked for; ``sys.path`` unless given.
    """
    tracer = _Tracer(Sources(main), [each or "." for each in (sys.path if path is None else path)])
    tracer.enter(main, package)
    tracer.want(package)
    return tracer.sources


@dataclass
class _Tracer:
    sources: Sources
    path: list[str]
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.path = [each for each in self.path if not _is_installed(Path(each))]

    def enter(self, file: Path, package: str) -> None:
        """Want everything that a file imports."""
        if file.suffix != ".py":
            return
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # another Python than ours may understand it
            self.sources.unclear.append(str(file))
            return
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    for each in names:
                        self.want(each.name)
                case ast.ImportFrom(module=module, names=names, level=level):
                    base = _absolute(module or "", level, package)
                    for name in (base, *(f"{base}.{each.name}" for each in names)) if base else ():
                        self.want(name)
                case ast.Call() if _is_importing(node.func):
                    self._want_computed(node, file)
                case _:
                    pass

    def want(self, name: str) -> None:
        """Take a module, the packages it is in, and what they import."""
        top = name.partition(".")[0]
        if not name or name in self._seen or top == _OURS:
            return
        self._seen.add(name)
        found = list(self._find(name))
        if not found and self._is_loaded_from_elsewhere(top):
            found = list(self._find(name))
        if not any(file for _, file in found) and top not in sys.stdlib_module_names:
            self.sources.installed.add(top)
        for module, file in found:
            if file is not None and module not in self.sources.modules:
                self.sources.modules[module] = file
                is_package = file.name.startswith("__init__.")
                self.enter(file, module if is_package else module.rpartition(".")[0])

    def _find(self, name: str) -> Iterator[tuple[str, Path | None]]:
        """The module and its packages, as far as they are the user's own; no file for a namespace package."""
        path, parts = self.path, name.split(".")
        for depth, part in enumerate(parts, start=1):
            file, path = _look_for(part, path)
            if file is None and not path:
                return
            yield ".".join(parts[:depth]), file

    def _is_loaded_from_elsewhere(self, top: str) -> bool:
        """Whether a module has been imported from a place that is not on the path, such as an editable install."""
        origin = getattr(getattr(sys.modules.get(top), "__spec__", None), "origin", None)
        if not isinstance(origin, str) or not Path(origin).is_file() or _is_installed(Path(origin)):
            return False
        place = Path(origin).parents[1 if Path(origin).name.startswith("__init__.") else 0]
        self.path.append(str(place))
        return True

    def _want_computed(self, call: ast.Call, file: Path) -> None:
        match call.args:
            case [ast.Constant(value=str(name)), *_] if not name.startswith("."):
                self.want(name)
            case _:
                self.sources.unclear.append(f"{file}:{call.lineno}")


def _look_for(part: str, path: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file of a module and where its submodules are, by the rules of Python's own finder."""
    portions = []
    for entry in path:
        directory = Path(entry) / part
        if (directory / "__init__.py").is_file():
            return directory / "__init__.py", [str(directory)]
        for suffix in _SUFFIXES:
            if (file := Path(entry) / f"{part}{suffix}").is_file():
                return file, []
        if directory.is_dir():
            portions.append(str(directory))
    return None, portions


def _is_installed(path: Path) -> bool:
    path = path.absolute()
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return not _INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(each) for each in standard)


def _is_importing(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _IMPORTING


def _absolute(module: str, level: int, package: str) -> str:
    """The absolute name of what ``from ...module import`` means in a package; empty if it leads out of it."""
    if level == 0:
        return module
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - level + 1]
    return ".".join([*kept, module] if module else kept) if kept else ""
