"""Runs a worker and writes down what its jobs touch that they will not find on a node.

It stands alone like the worker: standard library only, nothing of the scheduler. Python 3.7 has no audit hooks, so
there it only says that it sees nothing.
``python observer.py SETTINGS.json WORKER.py ARGUMENTS`` installs an audit hook and becomes the worker; the hook and its
open file of notes are inherited by the processes that the worker forks. What programs started by a job do, and what
libraries written in C open by themselves, is not seen.

Notes, one JSON object per line; ``file`` and ``line`` are of the innermost shipped source on the stack, or null::

    {"note": "touch", "how": "read" | "write" | "run", "path": ..., "asked": path as given, "file", "line", "directory"}
    {"note": "missing", "path": where it lies at home, "asked", "file", "line", "directory"}
    {"note": "variable", "name": ..., "file", "line", "directory"}
    {"note": "imported", "file": ..., "seconds": ...}
    {"note": "used", "results": directory, "seconds": ..., "memory_mb": ...}
    {"note": "blind", "event": ..., "message": what could not be observed}
"""

from __future__ import annotations

import json
import os
import re
import resource
import runpy
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev", "/run", "/var/lib", "/cvmfs",
)  # fmt: skip
_IMPORTING = "SCHEDULER_IMPORTING"
_RESULT_FILES = ("result.json", "error.json")
_SHIPPED = re.compile(r".*?/(?:unpacked-[^/]+/template|trials/\d+/[^/]+/[^/]+(?:/slice_\d+)?/work)(?:/(.*))?")
_LOOK_THROUGH = ("os", "posixpath", "collections.abc", "_collections_abc", __name__)


class Observer:
    """Sees what a process and its forks do.

    Args:
        settings: What ``Rehearsal.observed`` wrote: where notes go, which directories are the job's own, which exist
            only here, the empty and the real home directory, and the variables that exist only here.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._notes = os.open(settings["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._own = [os.path.realpath(each) for each in settings["own"]]
        self._here = [os.path.realpath(each) for each in settings["here"]]
        self._home, self._real_home = settings["home"], settings["real_home"]
        self._variables = frozenset(settings["variables"])
        libraries = {sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(None, sys.path)}
        self._known = sorted({os.path.realpath(each) for each in libraries} | set(_SYSTEM))
        self._temporary = {os.path.realpath(each) for each in ("/tmp", "/var/tmp", tempfile.gettempdir())}  # noqa: S108
        self._made: set[str] = set()
        self._written: set[str] = set()
        self._in_hook = threading.local()
        self._since = time.monotonic()
        self._import_began = self._since
        self._events: dict[str, Callable[..., None]] = {
            "open": self._see_open,
            "os.mkdir": self._see_write,
            "os.remove": self._see_write,
            "os.rmdir": self._see_write,
            "os.truncate": self._see_write,
            "os.rename": self._see_rename,
            "os.link": self._see_rename,
            "os.symlink": self._see_rename,
            "os.listdir": self._see_read,
            "os.scandir": self._see_read,
            "os.chdir": self._see_read,
            "sqlite3.connect": self._see_read,
            "ctypes.dlopen": self._see_library,
            "subprocess.Popen": self._see_program,
            "os.putenv": self._see_variable_set,
            "os.unsetenv": self._see_variable_unset,
        }

    def install(self) -> None:
        """Watch from now on, for the life of the process."""
        if not hasattr(sys, "addaudithook"):
            self._note("blind", event="all", message=f"Python {sys.version.split()[0]} has no audit hooks")
            return
        os.register_at_fork(after_in_child=self._begin_job)
        os.environ.__class__ = self._environ_class()
        sys.addaudithook(self._hook)

    def _begin_job(self) -> None:
        self._since = time.monotonic()

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        see = self._events.get(event)
        if see is None or getattr(self._in_hook, "is_on", False):
            return
        self._in_hook.is_on = True
        try:
            see(*arguments)
        except (OSError, ValueError, TypeError) as error:  # an exception here would make the job's own call fail
            self._note("blind", event=event, message=str(error))
        finally:
            self._in_hook.is_on = False

    # events

    def _see_open(self, path: Any, _mode: Any, flags: int) -> None:
        is_write = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        (self._see_write if is_write else self._see_read)(path)
        name = _as_text(path) if is_write else None
        if name is not None and os.path.basename(name) in _RESULT_FILES and self._is_of_worker(_absolute(name)):
            self._note_use(os.path.dirname(name))  # the last file that a job's process opens

    def _see_read(self, path: Any, *_: Any) -> None:
        asked = _as_text(path)
        if asked is None:
            return
        full = _absolute(asked)
        if "__pycache__" in full or full in self._made:
            return
        if not os.path.exists(full):
            self._look_at_home(asked, full)
        elif self._is_foreign(full):
            self._note_touch("read", full, asked)

    def _see_write(self, path: Any, *_: Any) -> None:
        asked = _as_text(path)
        if asked is None:
            return
        full = _absolute(asked)
        if "__pycache__" in full or full in self._temporary or self._inside(full) is not None:
            return  # a temporary directory is opened for writing to make a file without a name
        if self._is_of_worker(full):
            return
        if os.path.dirname(full) in self._temporary and not os.path.exists(full):
            self._made.add(full)
        elif self._is_own(full) or self._is_foreign(full):
            self._note_touch("write", full, asked)

    def _see_rename(self, _source: Any, target: Any, *_: Any) -> None:
        self._see_write(target)

    def _see_library(self, name: Any) -> None:
        if isinstance(name, str) and "/" in name:
            self._see_read(name)

    def _see_program(self, executable: Any, _arguments: Any, _directory: Any, _environment: Any) -> None:
        asked = _as_text(executable)
        found = None if asked is None else shutil.which(asked)
        if asked is None or found is None:
            return
        full = _absolute(found)
        if self._is_foreign(full):
            self._note_touch("run", full, asked)

    def _see_variable_set(self, name: Any, _value: Any) -> None:
        if _as_text(name) == _IMPORTING:
            self._import_began = time.monotonic()

    def _see_variable_unset(self, name: Any) -> None:
        if _as_text(name) == _IMPORTING:
            seconds = time.monotonic() - self._import_began
            self._note("imported", file=os.environ.get(_IMPORTING), seconds=seconds)

    def see_missing_variable(self, name: Any) -> None:
        """Note a variable that is asked for and not there.

        Only what shipped code asks for itself counts: libraries ask for many variables that nobody has.
        """
        if name not in self._variables:
            return
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - as logging does it
        while frame is not None and frame.f_globals.get("__name__") in _LOOK_THROUGH:
            frame = frame.f_back
        if frame is not None and self._shipped_name(frame) is not None:
            self._note_once("variable", name=name, **self._where(frame))

    # judging

    def _is_foreign(self, full: str) -> bool:
        """Whether a path belongs neither to the job nor to the system nor to the interpreter."""
        real = os.path.realpath(full)
        if self._inside(full) is not None or any(_is_below(path, each) for path in (full, real) for each in self._made):
            return False
        allowed = max((len(root) for root in (*self._own, *self._known) if _is_below(real, root)), default=0)
        at_home = max((len(root) for root in self._here if _is_below(real, root)), default=-1)
        return allowed == 0 or at_home > allowed

    def _is_own(self, full: str) -> bool:
        return any(_is_below(full, root) for root in self._own)

    def _is_of_worker(self, full: str) -> bool:
        """Whether it is one of the worker's results and logs, and nothing shipped is on the stack that asks for it."""
        is_apart = self._inside(full) is None and self._is_own(full)
        return is_apart and self._where(sys._getframe())["file"] is None  # noqa: SLF001

    def _look_at_home(self, asked: str, full: str) -> None:
        """Note a file that the job does not find and that exists where the program was started."""
        inside = self._inside(full)
        if _is_below(full, self._home):
            candidates = [self._real_home + full[len(self._home) :]]
        elif inside is not None or not os.path.isabs(asked):
            name = asked if inside is None else inside
            candidates = [os.path.normpath(os.path.join(root, name)) for root in self._here]
        else:
            candidates = []
        found = next((each for each in candidates if os.path.exists(each)), None)
        if found is not None:
            self._note_once("missing", path=found, asked=asked, **self._where(sys._getframe()))  # noqa: SLF001

    def _inside(self, path: str) -> str | None:
        """The name of a path in the unpacked files or in a job's copy of them; None when it is elsewhere."""
        root = next((root for root in self._own if _is_below(path, root)), None)
        match = None if root is None else _SHIPPED.fullmatch(path[len(root) :])
        return None if match is None else match[1] or ""

    # notes

    def _note_touch(self, how: str, full: str, asked: str) -> None:
        self._note_once("touch", how=how, path=full, asked=asked, **self._where(sys._getframe()))  # noqa: SLF001

    def _note_use(self, results: str) -> None:
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak_kb = max(resource.getrusage(each).ru_maxrss for each in whose)
        self._note("used", results=results, seconds=time.monotonic() - self._since, memory_mb=peak_kb * 1024 / 1e6)

    def _where(self, frame: FrameType | None) -> dict[str, Any]:
        """The innermost shipped source on the stack, and the directory that the job is in."""
        while frame is not None:
            name = self._shipped_name(frame)
            if name is not None:
                return {"file": name, "line": frame.f_lineno, "directory": os.getcwd()}
            frame = frame.f_back
        return {"file": None, "line": None, "directory": os.getcwd()}

    def _shipped_name(self, frame: FrameType) -> str | None:
        path = frame.f_code.co_filename
        return None if path.startswith("<") else self._inside(os.path.realpath(path)) or None

    def _note_once(self, kind: str, **facts: Any) -> None:
        text = json.dumps({"note": kind, **facts}, sort_keys=True)
        if text not in self._written:
            self._written.add(text)
            os.write(self._notes, text.encode() + b"\n")

    def _note(self, kind: str, **facts: Any) -> None:
        os.write(self._notes, json.dumps({"note": kind, **facts}).encode() + b"\n")

    def _environ_class(self) -> type:
        observer = self

        class ObservedEnviron(type(os.environ)):  # type: ignore[misc]
            """The environment; looks at what is asked for and not there."""

            def __getitem__(self, key: Any) -> Any:
                try:
                    return super().__getitem__(key)
                except KeyError:
                    observer.see_missing_variable(key)
                    raise

        return ObservedEnviron


def _as_text(path: Any) -> str | None:
    """A path as text; None for a file descriptor and what is no path."""
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else None


def _absolute(path: str) -> str:
    return os.path.abspath(path)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def main(arguments: list[str]) -> None:
    """Install the observer and become the worker."""
    settings, worker, *rest = arguments
    with open(settings, encoding="utf-8") as file:
        observer = Observer(json.load(file))
    sys.argv = [worker, *rest]
    observer.install()
    runpy.run_path(worker, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
