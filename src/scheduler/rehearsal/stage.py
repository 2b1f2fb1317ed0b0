"""Where a program is rehearsed: a process that runs it as ``python PROGRAM`` would and notes how it ended.

``python -P -m scheduler.rehearsal.stage PROGRAM ARGUMENTS``, with the rehearsal's directory in the environment.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from scheduler import rehearsing
from scheduler.errors import ConfigurationError
from scheduler.rehearsing import RehearsalEnded

_PACKAGE = Path(rehearsing.__file__).resolve().parent


def main(arguments: Sequence[str]) -> int:
    """Run a program until its one trial is over.

    Args:
        arguments: The program's file and its own arguments.

    Returns:
        The exit code that the program would have.

    Raises:
        ConfigurationError: This process belongs to no rehearsal.
    """
    rehearsal = rehearsing.current()
    if rehearsal is None:
        raise ConfigurationError(f"{rehearsing.VARIABLE} is not set: use 'scheduler rehearse PROGRAM.py'")
    program = Path(arguments[0])
    sys.argv = list(arguments)
    sys.path.insert(0, str(program.resolve().parent))
    code = 0
    try:
        runpy.run_path(str(program), run_name="__main__")
    except RehearsalEnded:
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        rehearsal.note("left", code=str(left.code))
    except BaseException as error:  # noqa: BLE001 - whatever the program raises is told, with its traceback
        traceback.print_exc()
        rehearsal.note("raised", **_describe(error, program.resolve()))
        code = 1
    sys.stdout.flush()
    return code


def _describe(error: BaseException, program: Path) -> dict[str, object]:
    file, line = _place(error, program)
    return {
        "exception": type(error).__name__,
        "ancestors": [each.__name__ for each in type(error).__mro__],
        "message": str(error),
        "file": file,
        "line": line,
    }


def _place(error: BaseException, program: Path) -> tuple[str | None, int | None]:
    """The innermost line of the user's own files that led to an error."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return _short(Path(error.filename), program), error.lineno
    places = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in places if path == program or _is_users(path, program)]
    if not own:
        return None, None
    path, line = own[-1]
    return _short(path, program), line


def _is_users(path: Path, program: Path) -> bool:
    is_beside = path.is_relative_to(program.parent) and not path.is_relative_to(_PACKAGE)
    return is_beside and not path.is_relative_to(sys.prefix)


def _short(path: Path, program: Path) -> str:
    path = path.resolve()
    return path.relative_to(program.parent).as_posix() if path.is_relative_to(program.parent) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
