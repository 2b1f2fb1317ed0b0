"""The worker's side: one file that runs payloads, on this machine or on a node.

It stands alone: standard library only (and cloudpickle for functions that come by value), Python 3.7 or newer, nothing
of the scheduler. ``python worker.py pilot`` reads orders as JSON lines on stdin and reports as JSON lines on stdout. It
loads a function once and then forks for every job, so that a job costs milliseconds although its imports cost seconds.

Orders::

    {"do": "define", "target": name, "kind": "pickle", "data": base64 | "file": path, "sys_path": [...]}
    {"do": "define", "target": name, "kind": "shipped", "root": ..., "file": ..., "module": ..., "qualname": ...}
    {"do": "run", "job": key, "target": name | "argv": [...], "directory": ..., "log": ..., "results": ...,
     "arguments": base64 pickle, "as_mapping": bool, "environment": {name: value or null},
     "template": directory or null}
    {"do": "kill", "job": key}
    {"do": "leave"}

Reports::

    {"report": "ready", "pid": number}
    {"report": "loading", "target": name}    {"report": "loaded", "target": name}
    {"report": "started", "job": key, "pid": number}
    {"report": "ended", "job": key, "status": exit code, or minus the signal}
    {"report": "refused", "job": key, "message": why no process could be started}

A job's process leaves ``result.json`` and exits with :data:`EXIT_RESULT`, or ``error.json`` and :data:`EXIT_ERROR`. Any
other exit status says that it was torn away, whatever files there are.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import gc
import importlib.util
import json
import os
import pickle
import re
import selectors
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

EXIT_RESULT = 96
"""Exit code of a job's process that has written its result."""
EXIT_ERROR = 97
"""Exit code of a job's process that has written why there is no result."""

IMPORTING_VARIABLE = "SCHEDULER_IMPORTING"
START_DIRECTORY_VARIABLE = "SCHEDULER_START_DIR"

_LOOK_AROUND_S = 0.5  # how often a pilot makes sure that its parent is alive
_LONGEST_MESSAGE = 2000  # characters; the log has all of it
_PATIENCE_WITH_THE_DYING_S = 2.0


# ---------------------------------------------------------------------------------------------------- results as JSON


class UnsuitableResultError(Exception):
    """The return value of a function is not made of JSON types."""


def to_json_types(value: Any, where: str = "result") -> Any:
    """The same value made of JSON types only: numpy's scalars and arrays become numbers and lists, tuples lists.

    Args:
        value: What a function returned.
        where: How to call the value in an error, for example ``result['energy'][2]``.

    Raises:
        UnsuitableResultError: Something in it has no counterpart in JSON; the message says where.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {_checked_key(key, where): to_json_types(each, f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_types(each, f"{where}[{index}]") for index, each in enumerate(value)]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    plain = _as_numpy_would(value)
    if type(plain) is type(value):
        raise UnsuitableResultError(
            f"{where} is of type {_type_name(value)}, which JSON cannot express: "
            "return numbers, text, lists, None and dicts of these"
        )
    return to_json_types(plain, where)


def _as_numpy_would(value: Any) -> Any:
    """A Python value of an array, tensor or scalar; the value itself if it is none. Nothing is imported for it."""
    if not hasattr(value, "dtype"):
        return value
    convert = getattr(value, "tolist", None) or getattr(value, "item", None)
    return convert() if callable(convert) else value


def _checked_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise UnsuitableResultError(f"{where} has the key {key!r} of type {_type_name(key)}: keys must be text")
    return str.__str__(key)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def write_json(path: str, data: Any) -> None:
    """Write a file. That it is complete is said by the exit code of the process, not by its being there."""
    text = json.dumps(data)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# -------------------------------------------------------------------------------------------------- loading functions


class LoadError(Exception):
    """A target could not be loaded. ``__cause__`` is the reason."""


def load_target(target: dict[str, Any]) -> Callable[..., Any]:
    """The function that a definition describes.

    Raises:
        LoadError: It could not be loaded, whatever the reason.
    """
    try:
        load = _load_pickled if target["kind"] == "pickle" else _load_shipped
        function: Callable[..., Any] = load(target)
    except BaseException as error:
        raise LoadError from error
    return function


def _load_pickled(target: dict[str, Any]) -> Any:
    if target.get("sys_path"):
        sys.path[:] = target["sys_path"]
    if "file" in target:
        with open(target["file"], "rb") as file:
            return pickle.load(file)  # noqa: S301 - comes from the driver, never from a node
    return pickle.loads(base64.b64decode(target["data"]))  # noqa: S301 - as above


def _load_shipped(target: dict[str, Any]) -> Any:
    root, file, name = target["root"], target["file"], target["module"]
    if root not in sys.path:
        sys.path.insert(0, root)
    path = os.path.join(root, file)
    module = sys.modules.get(name)
    if module is None or getattr(module, "__file__", None) != path:
        module = _import_file(path, file, name)
    function = module
    for part in target["qualname"].split("."):
        function = getattr(function, part)
    return function


def _import_file(path: str, file: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file", name=name)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    os.environ[IMPORTING_VARIABLE] = file
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise
    finally:
        os.environ.pop(IMPORTING_VARIABLE, None)
    return module


# --------------------------------------------------------------------------------------------------------- one job


def run_function(function: Callable[..., Any], arguments: dict[str, Any], as_mapping: bool = False) -> Any:  # noqa: FBT001, FBT002
    """Call a function and give its result in JSON types."""
    result = function(arguments) if as_mapping else function(**arguments)
    try:
        return to_json_types(result)
    except RecursionError:
        raise UnsuitableResultError("result contains itself, or is nested too deeply for JSON") from None


def describe_error(error: BaseException) -> dict[str, Any]:
    """What ``error.json`` says about an exception."""
    cause = "exception"
    if isinstance(error, UnsuitableResultError):
        cause = "result"
    elif isinstance(error, LoadError) and error.__cause__ is not None:
        cause, error = "environment", error.__cause__
    facts = {
        "cause": cause,
        "exception": type(error).__name__,
        "message": _message_of(error),
        "traceback": format_traceback(error),
    }
    if isinstance(error, ImportError) and error.name:
        facts["module"] = error.name
    return facts


def format_traceback(error: BaseException) -> str:
    """The traceback without the frames of this file at its top, as the user would see it without us."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _is_ours(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib")


def _message_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the function ended its program with exit code {error.code!r}"
    try:
        message = str(error)[:_LONGEST_MESSAGE]
    except Exception as failure:  # noqa: BLE001 - the user's class may do anything
        message = f"(its message cannot be shown: {type(failure).__name__})"
    start = os.environ.get(START_DIRECTORY_VARIABLE)
    name = error.filename if isinstance(error, FileNotFoundError) else None
    if start and isinstance(name, str) and not os.path.isabs(name) and os.path.exists(os.path.join(start, name)):
        message += (
            f" (there is one in {start}, where the program was started, but every job runs in a directory of its own: "
            "use an absolute path)"
        )
    return message


class _Job:
    """What the forked process does: become a world of its own, run the payload, say how it went."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.results = order.get("results") or order["directory"]

    def run(self, function: Any) -> int:
        """The exit code. ``function`` may be the :class:`LoadError` that came up instead."""
        try:
            result = self._call(function)
            write_json(os.path.join(self.results, "result.json"), result)
            code = EXIT_RESULT
        except BaseException as error:  # noqa: BLE001 - whatever user code does is told, not raised
            facts = describe_error(error)
            sys.stderr.write(facts["traceback"])
            write_json(os.path.join(self.results, "error.json"), facts)
            code = EXIT_ERROR
        return code

    def _call(self, function: Any) -> Any:
        self._enter_directory()
        if "argv" in self.order:
            self._become_command(self.order["argv"])
        if isinstance(function, LoadError):
            raise function
        return run_function(function, self._arguments(), bool(self.order.get("as_mapping")))

    def _enter_directory(self) -> None:
        try:
            os.chdir(self.order["directory"])
        except OSError as error:
            raise LoadError from error
        for name, value in (self.order.get("environment") or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self.order.get("template"):
            _move_paths(self.order["template"], self.order["directory"])

    def _arguments(self) -> dict[str, Any]:
        try:
            arguments: dict[str, Any] = pickle.loads(base64.b64decode(self.order["arguments"]))  # noqa: S301 - the driver's
        except Exception as error:
            raise LoadError from error
        return arguments

    def _become_command(self, argv: list[str]) -> NoReturn:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for name in ("result.json", "error.json"):  # of an earlier attempt: only what this one writes counts
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.results, name))
        try:
            os.execvp(argv[0], argv)  # noqa: S606 - the argv is the user's own program
        except OSError as error:
            error.filename = error.filename or argv[0]
            raise LoadError from error


def _move_paths(old: str, new: str) -> None:
    """Replace a directory by another in the environment and in ``sys.path``."""
    names = sorted({old, os.path.realpath(old)}, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w.-])(?:%s)(?![\w.-])" % "|".join(map(re.escape, names)))
    for name, value in list(os.environ.items()):
        if pattern.search(value):
            os.environ[name] = pattern.sub(lambda _: new, value)
    sys.path[:] = [pattern.sub(lambda _: new, entry) for entry in sys.path]


def _reseed() -> None:
    """Give a forked process random numbers of its own; Python does it for ``random``, these modules do not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch_random = sys.modules.get("torch.random")
    if torch_random is not None:
        torch_random.default_generator.seed()


# ------------------------------------------------------------------------------------------------------ the processes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _find_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        function: Callable[..., int] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):  # an interpreter without ctypes, a system without prctl
        return None
    return function


_KERNEL_TELLS_CHILDREN = os.path.exists("/proc/thread-self/children")


def children_of(pid: int | str) -> set[int] | None:
    """The children of a process; None where the system does not tell (other than Linux)."""
    if not _KERNEL_TELLS_CHILDREN:
        return None
    children: set[int] = set()
    with contextlib.suppress(OSError):  # the process has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children.update(map(int, file.read().split()))
    return children


def _own_children() -> set[int]:
    """The children of this process, orphans of its descendants included."""
    return children_of("self") or set()


def _kill_hard(pid: int) -> None:
    """Kill a process that is not yet reaped, and its process group if it leads one."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:  # no such group, or only zombies in it
            continue


def _note_signal(_number: int, _frame: Any) -> None:
    """Only there so that the signal reaches the wake-up pipe."""


class Pilot:
    """Runs orders until nobody gives any more. Single-threaded, because it forks.

    Args:
        orders: File descriptor to read orders from.
        reports: File descriptor to write reports to.
        loaded: Functions that need no loading, by the name of their target.
    """

    def __init__(self, orders: int, reports: int, loaded: dict[str, Any] | None = None) -> None:
        self._orders = orders
        self._reports = reports
        self._parent = os.getppid()
        self._targets: dict[str, dict[str, Any]] = {}
        self._loaded: dict[str, Any] = dict(loaded or {})
        self._pids: dict[str, int] = {}
        self._helpers: set[int] = set()
        self._unread = bytearray()
        self._bell, self._ringer = os.pipe()
        self._prctl = _find_prctl()

    def serve(self) -> None:
        """Work until told to leave, stdin is closed or the parent has gone; then end all jobs."""
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._listen_to_signals()
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            self._report({"report": "ready", "pid": os.getpid()})
            wanted = True
            while wanted and os.getppid() == self._parent:
                ready = {key.fd for key, _ in selector.select(_LOOK_AROUND_S)}
                if self._bell in ready and signal.SIGTERM in os.read(self._bell, 4096):
                    break
                self._reap()
                if self._orders in ready:
                    wanted = self._read_orders()
        self._end_everything()

    def _listen_to_signals(self) -> None:
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ringer, False)
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note_signal)
        signal.signal(signal.SIGTERM, _note_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, self._look_for_parent)

    def _look_for_parent(self, _number: int, _frame: Any) -> None:
        """While a module is being imported, nobody reads stdin: notice here that the driver has died."""
        if os.getppid() != self._parent:
            self._end_everything()
            os._exit(1)

    def _report(self, facts: dict[str, Any]) -> None:
        data = json.dumps(facts).encode("ascii") + b"\n"
        while data:
            try:
                data = data[os.write(self._reports, data) :]
            except OSError:  # the driver has gone; stdin will say so
                return

    def _read_orders(self) -> bool:
        data = os.read(self._orders, 1 << 20)
        self._unread += data
        if b"\n" not in data:
            return bool(data)
        *lines, rest = bytes(self._unread).split(b"\n")
        self._unread = bytearray(rest)
        for line in lines:
            order = json.loads(line.decode("utf-8"))
            if order["do"] == "leave":
                return False
            self._obey(order)
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "define":
            self._targets[order["target"]] = order
        elif order["do"] == "run":
            self._run(order)
        elif order["do"] == "kill" and order["job"] in self._pids:
            _kill_hard(self._pids[order["job"]])

    def _run(self, order: dict[str, Any]) -> None:
        function = None if "argv" in order else self._function(order["target"])
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            self._report({"report": "refused", "job": order["job"], "message": f"no process could be started: {error}"})
            return
        if pid == 0:
            self._be_job(order, function)
        with contextlib.suppress(OSError):  # in both processes, so that it is done whoever is first
            os.setpgid(pid, pid)
        self._pids[order["job"]] = pid
        self._report({"report": "started", "job": order["job"], "pid": pid})

    def _be_job(self, order: dict[str, Any], function: Any) -> NoReturn:
        code = 1
        try:
            self._leave_pilot(order["log"])
            code = _Job(order).run(function)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - nothing may return into the pilot's loop
            traceback.print_exc()
        finally:
            os._exit(code)

    def _leave_pilot(self, log: str) -> None:
        """Become a process of its own: group, signals, files, random numbers."""
        pilot = os.getppid()
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != pilot:  # it died before we asked to follow it
                os._exit(1)
        for fd in (self._orders, self._reports, self._bell, self._ringer):
            os.close(fd)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)
        _reseed()

    def _function(self, name: str) -> Any:
        """The function of a target, or the :class:`LoadError` that explains why there is none."""
        if name in self._loaded:
            return self._loaded[name]
        before = _own_children()
        self._report({"report": "loading", "target": name})
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AROUND_S, _LOOK_AROUND_S)
        try:
            self._loaded[name] = load_target(self._targets[name])
        except LoadError as error:  # not remembered: what is missing now may be there next time
            return error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._listen_to_signals()  # a module may have taken them for itself
            self._helpers |= _own_children() - before
            self._report({"report": "loaded", "target": name})
        gc.freeze()  # keep the pages of what was loaded shared with the jobs
        return self._loaded[name]

    def _reap(self) -> None:
        keys = {pid: key for key, pid in self._pids.items()}
        for pid, status in _collect_dead(keys):
            key = keys.get(pid)
            if key is not None:
                del self._pids[key]
                self._sweep()
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self._report({"report": "ended", "job": key, "status": code})

    def _sweep(self, doomed: Iterable[int] = ()) -> None:
        """End the doomed, and what jobs left behind.

        The orphans of a living job belong to that job, so those that came to us belong to a dead one.
        """
        alive = set(doomed)
        deadline = time.monotonic() + _PATIENCE_WITH_THE_DYING_S
        while time.monotonic() < deadline:
            alive |= _own_children() - set(self._pids.values()) - self._helpers
            if not alive:
                return
            for pid in alive:
                _kill_hard(pid)
            dead = {pid for pid in alive if _is_reaped(pid)}
            alive -= dead
            if not dead:
                time.sleep(0.001)  # a killed process needs a moment, and nobody else will tell us

    def _end_everything(self) -> None:
        jobs = list(self._pids.values())
        self._pids.clear()
        self._helpers.clear()
        self._sweep(jobs)


def _collect_dead(jobs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Reap children; what is left of a group is killed before its number can belong to somebody else."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        yield from _collect_dead_by_name(jobs)
        return
    with contextlib.suppress(ChildProcessError):
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return
            _kill_hard(found.si_pid)
            yield os.waitpid(found.si_pid, 0)


def _collect_dead_by_name(jobs: Iterable[int]) -> Iterator[tuple[int, int]]:
    for job in list(jobs):
        pid, status = os.waitpid(job, os.WNOHANG)
        if pid:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            yield pid, status


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def main(arguments: list[str]) -> int:
    """Run as a pilot on stdin and stdout."""
    if arguments != ["pilot"]:
        sys.stderr.write("usage: python worker.py pilot\n")
        return 2
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # our modules are not the user's
    orders, reports = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a module prints is no report
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    Pilot(orders, reports).serve()
    sys.stdout.flush()
    os._exit(0)  # not through the exit handlers of what was imported


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
