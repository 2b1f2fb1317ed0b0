"""Looking at, and ending, a process with all its descendants."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from scheduler.worker import children_of

_BYTES_PER_MB = 1e6


def kill_tree(pid: int) -> None:
    """Kill a process, its descendants and its process group. Harmless if there is nothing left of it."""
    doomed = [pid, *descendants(pid)]
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    for each in doomed:
        with contextlib.suppress(OSError):
            os.kill(each, signal.SIGKILL)


def is_child(pid: int, *, parent: int) -> bool:
    """Whether a process lives, or waits to be reaped, as a child of another: a reused number would not."""
    import psutil

    try:
        return bool(psutil.Process(pid).ppid() == parent)
    except psutil.Error:
        return False


def descendants(pid: int) -> list[int]:
    """Children, grandchildren and so on of a process, parents before their children."""
    found = list(_children(pid))
    for each in found:  # grows while it is walked
        found.extend(_children(each))
    return found


def _children(pid: int) -> Iterator[int]:
    known = children_of(pid)
    if known is not None:
        yield from known
        return
    import psutil  # asks for every process of the machine, so only where the kernel does not tell

    with contextlib.suppress(psutil.Error):
        yield from (child.pid for child in psutil.Process(pid).children())


def memory_of_tree_mb(pid: int, *, limit_mb: float) -> float:
    """The memory of a process and its descendants in MB (10^6 bytes).

    The quick sum counts pages twice that forked processes share. When it is over the limit, the sum is taken again with
    every shared page divided among those that share it, where the system can tell.

    Args:
        pid: The root.
        limit_mb: The value that it is going to be compared with.
    """
    pids = [pid, *descendants(pid)]
    quick = sum(map(_resident_mb, pids))
    return quick if quick <= limit_mb else sum(map(_proportional_mb, pids))


def _resident_mb(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).memory_info().rss) / _BYTES_PER_MB
    except psutil.Error:  # it has just ended
        return 0.0


def _proportional_mb(pid: int) -> float:
    import psutil

    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.AccessDenied:  # a program with other rights, such as a setuid container engine
        return _resident_mb(pid)
    except psutil.Error:
        return 0.0
    return float(getattr(memory, "pss", memory.rss)) / _BYTES_PER_MB
