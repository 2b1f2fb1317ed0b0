"""The source files of a program: which directory, which files, packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scheduler import rehearsing
from scheduler.errors import ConfigurationError
from scheduler.panda.exclusion import Exclusion
from scheduler.panda.locate import source_file_of
from scheduler.panda.selection import Selection, select_files

OF_THE_FUNCTION = "function"
"""As ``source_dir``: the directory of the file that the function is in, or one above it."""


@dataclass(slots=True)
class Sources:
    """Finds what ships for a function.

    A directory is looked at once and then ships as it was, until :meth:`forget`: every trial of a run evaluates the
    same code, and a log file that grows beside the program does not make it another program.

    Attributes:
        source_dir: The directory; None asks for the function's own.
        levels_above: How many levels above the function's own.
        exclusions: What does not ship.
    """

    source_dir: Path | None
    levels_above: int
    exclusions: tuple[Exclusion, ...]
    _selections: dict[Path, Selection] = field(default_factory=dict)

    def selection_for(self, function: Callable[..., object]) -> Selection:
        """The files that ship for a function.

        Raises:
            ConfigurationError: There is no such directory.
            ShippingError: The files cannot be shipped, or the function cannot be imported from a file.
        """
        root = self.source_dir or self._directory_of(function)
        if root not in self._selections:
            self._selections[root] = selection = select_files(root, self.exclusions)
            rehearsal = rehearsing.current()
            if rehearsal is not None:
                rehearsal.note(
                    "selected",
                    root=str(root),
                    files={each.name: each.size for each in selection.files},
                    left_out=dict(selection.left_out),
                    surprises=dict(selection.surprises),
                )
        return self._selections[root]

    def forget(self) -> None:
        """Look at the directories again next time."""
        self._selections.clear()

    def _directory_of(self, function: Callable[..., object]) -> Path:
        file = source_file_of(function).absolute()
        try:
            return file.parents[self.levels_above]
        except IndexError:
            raise ConfigurationError(
                f"source_dir_parent_level={self.levels_above}: {file.parent} has no {self.levels_above} levels above it"
            ) from None


def sources_of(source_dir: object, *, levels_above: int, exclusions: tuple[Exclusion, ...]) -> Sources:
    """Understand the user's ``source_dir``: None, ``"function"`` or a path.

    Raises:
        ConfigurationError: It is something else, or a directory that does not exist.
    """
    if source_dir is None:
        return Sources(Path.cwd(), levels_above, exclusions)
    if source_dir == OF_THE_FUNCTION:
        return Sources(None, levels_above, exclusions)
    if not isinstance(source_dir, str | Path):
        raise ConfigurationError(
            f"source_dir must be a path, None for the current directory or '{OF_THE_FUNCTION}', not {source_dir!r}"
        )
    directory = Path(source_dir).expanduser().absolute()
    if not directory.is_dir():
        raise ConfigurationError(f"source_dir {str(source_dir)!r} does not exist or is no directory ({directory})")
    return Sources(directory, levels_above, exclusions)
