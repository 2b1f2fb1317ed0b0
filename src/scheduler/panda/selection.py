"""Which files of a directory ship.

The rules are those of the existing PanDA client: exclusion works on the base name, for the entries of the top directory
and for every file below it; directories further down are not asked. Empty directories do not ship. On top of that some
directories never ship: our own run directories, virtual environments, ``.git`` and Python's ``__pycache__`` (it changes
whenever somebody imports something, and would make the same program look like another one).
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from scheduler.errors import ConfigurationError, ShippingError
from scheduler.panda.exclusion import Exclusion

logger = logging.getLogger(__name__)

MAX_BYTES = 768 * 1024 * 1024
"""What a PanDA server takes; counted here before compression."""

_NEVER_SHIPPED = frozenset({".git", "__pycache__", "scheduler_runs"})
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that ships.

    Attributes:
        name: Its path in the archive: relative to the source directory, with ``/``.
        path: Where it is read from.
        size: Bytes.
        mtime_ns: When it was last changed, in nanoseconds.
        identity: Device and inode.
        is_executable: Whether its owner may execute it.
    """

    name: str
    path: Path
    size: int
    mtime_ns: int
    identity: tuple[int, int]
    is_executable: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """What ships of a directory, and what does not and why.

    Attributes:
        root: The source directory.
        files: What ships, sorted by name.
        left_out: Name of a file or directory that does not ship -> why, as a sentence goes on after the name.
        surprises: Those of them with Python in it that an expression takes by the beginning of their names -> pattern.
    """

    root: Path
    files: tuple[SourceFile, ...]
    left_out: Mapping[str, str]
    surprises: Mapping[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for two selections whose files have not been touched in between."""
        return tuple((each.name, each.size, each.mtime_ns, each.identity, each.is_executable) for each in self.files)

    def name_of(self, path: Path) -> str | None:
        """The name under which a file ships; None when it does not."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() would follow links
        try:
            if absolute.is_relative_to(self.root):
                relative = absolute.relative_to(self.root).as_posix()
                if any(each.name == relative for each in self.files):
                    return relative
            status = path.stat()
        except OSError:
            return None
        identity = (status.st_dev, status.st_ino)
        return next((each.name for each in self.files if each.identity == identity), None)

    def why_left_out(self, name: str) -> str | None:
        """Why a file of this name does not ship, as a clause about it or its directory; None if nothing keeps it."""
        parts = name.split("/")
        ancestors = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return next((f"{each} {self.left_out[each]}" for each in ancestors if each in self.left_out), None)


def select_files(root: Path, exclusions: Sequence[Exclusion] = ()) -> Selection:
    """Decide which files of a directory ship.

    Warns once, by name, about Python files that an expression takes although it matches only the beginning of their
    names: ``.*log`` takes ``catalog.py``.

    Args:
        root: The source directory.
        exclusions: The user's patterns.

    Raises:
        ConfigurationError: The directory does not exist.
        ShippingError: A link leads nowhere or in a circle, a file cannot be read, or the files are too large together.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"source_dir {str(root)!r} is no directory: give one that exists, or None for the current"
        )
    walk = _Walk(root, exclusions)
    walk.run()
    if walk.unreadable:
        raise ShippingError(
            f"cannot read {_some(walk.unreadable)} in {root}: make them readable, or keep them at home with "
            "exclude_source_files"
        )
    files = tuple(sorted(walk.files, key=lambda each: each.name))
    _check_size(root, files)
    _warn_of_surprises(walk.surprises)
    return Selection(root, files, MappingProxyType(walk.left_out), MappingProxyType(walk.surprises))


@dataclass
class _Walk:
    """One walk over a directory tree: real directories first, then what links lead to.

    In this order a directory that can be reached in two ways ships under its own name.
    """

    root: Path
    exclusions: Sequence[Exclusion]
    files: list[SourceFile] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    surprises: dict[str, str] = field(default_factory=dict)
    _reached: set[tuple[int, int]] = field(default_factory=set)
    _links: list[tuple[str, Path]] = field(default_factory=list)

    def run(self) -> None:
        self._enter("", self.root)
        while self._links:
            name, path = self._links.pop(0)
            self._follow(name, path)

    def _enter(self, name: str, directory: Path) -> None:
        """Take what is in a directory, and in the directories below it."""
        pending = [(name, directory)]
        while pending:
            prefix, current = pending.pop()
            status = current.stat()
            self._reached.add((status.st_dev, status.st_ino))
            for entry in self._entries(prefix, current):
                entry_name = f"{prefix}/{entry.name}" if prefix else entry.name
                if self._is_directory_to_enter(entry_name, entry):
                    pending.append((entry_name, Path(entry.path)))

    def _entries(self, prefix: str, directory: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            self.unreadable.append(f"{prefix}/")
            return []

    def _is_directory_to_enter(self, name: str, entry: os.DirEntry[str]) -> bool:
        """Take an entry if it is a file, remember it if it is a link to a directory, and say whether to go on in it."""
        if self._is_left_out(name, entry):
            return False
        path = Path(entry.path)
        if entry.is_symlink():
            self._take_link(name, path)
            return False
        if entry.is_dir(follow_symlinks=False):
            return True
        self._take_file(name, path)
        return False

    def _is_left_out(self, name: str, entry: os.DirEntry[str]) -> bool:
        is_asked = "/" not in name or not _is_directory(entry)
        reason = _reason_never_to_ship(entry)
        if reason is None and is_asked:
            taking = next((each for each in self.exclusions if each.takes(entry.name)), None)
            if taking is not None:
                reason = f"is taken by the exclude pattern {taking.pattern!r}"
                self._note_surprise(name, entry, taking)
        if reason is not None:
            self.left_out[name] = reason
        return reason is not None

    def _note_surprise(self, name: str, entry: os.DirEntry[str], taking: Exclusion) -> None:
        taking_all = (each for each in self.exclusions if each.takes(entry.name))
        if not all(each.takes_by_its_beginning(entry.name) for each in taking_all):
            return
        if entry.name.endswith(".py"):
            self.surprises[name] = taking.pattern
        elif _is_directory(entry) and (Path(entry.path) / "__init__.py").exists():
            self.surprises[f"{name}/"] = taking.pattern

    def _take_link(self, name: str, path: Path) -> None:
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError:
            raise ShippingError(
                f"the link {path} leads to {path.readlink()}, which does not exist: mend or remove it, "
                "or keep it at home with exclude_source_files"
            ) from None
        except PermissionError:
            self.unreadable.append(name)
            return
        except (OSError, RuntimeError) as error:  # a circle of links is the one or the other, depending on the Python
            raise ShippingError(f"the link {path} leads in a circle ({error}): mend or remove it") from error
        if target.is_dir():
            self._links.append((name, target))
        else:
            self._take_file(name, path)

    def _follow(self, name: str, directory: Path) -> None:
        """Go on in a directory that a link leads to, unless it has been reached before."""
        root = self.root.resolve()
        if directory != root and root.is_relative_to(directory):
            raise ShippingError(
                f"the link {self.root / name} leads to {directory}, which contains the source directory itself: "
                "remove it, or keep it at home with exclude_source_files"
            )
        status = directory.stat()
        if (status.st_dev, status.st_ino) in self._reached:
            self.left_out.setdefault(name, f"is a link to {directory}, which ships under another name")
            return
        reason = _reason_no_directory_ships(directory)
        if reason is not None:
            self.left_out[name] = reason
            return
        self._enter(name, directory)

    def _take_file(self, name: str, path: Path) -> None:
        try:
            status = path.stat()
        except PermissionError:
            self.unreadable.append(name)
            return
        if not stat.S_ISREG(status.st_mode):
            self.left_out[name] = "is no regular file"
            logger.info("%s does not ship: it is a socket, pipe or device", path)
        elif not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            self.unreadable.append(name)
        else:
            self.files.append(
                SourceFile(
                    name=name,
                    path=path,
                    size=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                    identity=(status.st_dev, status.st_ino),
                    is_executable=bool(status.st_mode & stat.S_IXUSR),
                )
            )


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _reason_never_to_ship(entry: os.DirEntry[str]) -> str | None:
    if entry.name == ".git":  # a directory, or the file that stands for it in a worktree
        return "never ships"
    if not entry.is_dir(follow_symlinks=False):
        return None
    return _reason_no_directory_ships(Path(entry.path))


def _reason_no_directory_ships(directory: Path) -> str | None:
    if directory.name in _NEVER_SHIPPED:
        return "never ships"
    if _contains(directory, "pyvenv.cfg"):
        return "is a virtual environment"
    if _contains(directory, "experiment.db") or _is_described_as_run(directory):
        return "is a run directory"
    return None


def _is_described_as_run(directory: Path) -> bool:
    """Whether there is a ``run.json`` of ours, and not one of the user's."""
    if not _contains(directory, "run.json"):
        return False
    try:
        described = json.loads((directory / "run.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(described, dict) and "run_id" in described


def _contains(directory: Path, name: str) -> bool:
    return os.path.exists(directory / name)  # noqa: PTH110 - Path.exists() raises in a directory one may not enter


def _check_size(root: Path, files: Sequence[SourceFile]) -> None:
    total = sum(each.size for each in files)
    if total <= MAX_BYTES:
        return
    sizes: dict[str, int] = {}
    for each in files:
        entry = each.name.split("/")[0] + ("/" if "/" in each.name else "")
        sizes[entry] = sizes.get(entry, 0) + each.size
    biggest = sorted(sizes, key=lambda entry: -sizes[entry])[:_MOST_NAMED]
    listed = ", ".join(f"{entry} ({_megabytes(sizes[entry])})" for entry in biggest)
    raise ShippingError(
        f"the files of {root} have {_megabytes(total)} together, and at most {_megabytes(MAX_BYTES)} can be shipped; "
        f"the biggest are {listed}: keep what the jobs do not need at home with exclude_source_files"
    )


def _warn_of_surprises(surprises: Mapping[str, str]) -> None:
    if surprises:
        listed = ", ".join(f"{name} (by {pattern!r})" for name, pattern in sorted(surprises.items()))
        logger.warning(
            "exclude_source_files: a pattern with special characters is a regular expression that need only match the "
            "beginning of a name, so these Python files will not be shipped: %s",
            listed,
        )


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MB"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
