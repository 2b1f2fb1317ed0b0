"""Enforces the time and memory limits of running jobs, in one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.core.failures import Cause
from scheduler.core.specs import Resources
from scheduler.runners.process_tree import memory_of_tree_mb

_MEMORY_INTERVAL_S = 0.25
_WHOLE_SECONDS_FROM = 10


@dataclass(eq=False, slots=True)
class Guard:
    """One job under watch.

    Attributes:
        resources: Its limits; ``walltime_s`` counts from the making of the guard.
        stop: Called once, from the watch's thread, with the limit that was passed and a sentence about it.
        pid: The root of its processes, once there is one.
        since: When it was made, by the monotonic clock.
    """

    resources: Resources
    stop: Callable[[Cause, str], None]
    pid: int | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        """When its time is over, by the monotonic clock."""
        limit = self.resources.walltime_s
        return float("inf") if limit is None else self.since + limit

    def find_excess(self, now: float) -> tuple[Cause, str] | None:
        """The limit that is passed, and a sentence about it."""
        if now >= self.deadline:
            return Cause.TIMEOUT, self._describe_timeout(now)
        limit_mb = self.resources.memory_mb
        if limit_mb is None or self.pid is None:
            return None
        used_mb = memory_of_tree_mb(self.pid, limit_mb=limit_mb)
        if used_mb <= limit_mb:
            return None
        return (
            Cause.MEMORY,
            f"used {used_mb:.0f} MB of memory, more than memory_mb={limit_mb}",
        )

    def _describe_timeout(self, now: float) -> str:
        limit = f"walltime_s={self.resources.walltime_s:g}"
        if self.pid is None:
            return f"had not started within {limit}: its worker was still starting or importing"
        return f"ran {_seconds(now - self.since)}, more than {limit}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= _WHOLE_SECONDS_FROM else f"{value:.2f} s"


class LimitWatch:
    """Watches the jobs of a runner. Its thread starts with the first job that has a limit.

    Time limits are met within milliseconds; memory is looked at four times per second, only while jobs with a memory
    limit are under watch.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._guards: set[Guard] = set()
        self._next_look = float("inf")
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, guard: Guard) -> None:
        """Watch a job until it is removed. A job without limits costs nothing."""
        if guard.resources.walltime_s is None and guard.resources.memory_mb is None:
            return
        with self._changed:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scheduler-limits", daemon=True)
                self._thread.start()
            elif self._when_to_look() < self._next_look:
                self._changed.notify()

    def remove(self, guard: Guard) -> None:
        """Forget a job. Harmless when it is not under watch."""
        with self._changed:
            self._guards.discard(guard)

    def close(self) -> None:
        """Stop watching. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._guards.clear()
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._next_look = self._when_to_look()
                self._changed.wait(min(self._next_look - time.monotonic(), threading.TIMEOUT_MAX))
                if self._is_closed:
                    return
                guards = list(self._guards)
            for guard in guards:
                self._look_at(guard)

    def _when_to_look(self) -> float:
        look = min((guard.deadline for guard in self._guards), default=float("inf"))
        if any(guard.resources.memory_mb is not None for guard in self._guards):
            look = min(look, time.monotonic() + _MEMORY_INTERVAL_S)
        return look

    def _look_at(self, guard: Guard) -> None:
        excess = guard.find_excess(time.monotonic())
        if excess is None:
            return
        with self._changed:
            is_watched = guard in self._guards
            self._guards.discard(guard)
        if is_watched:  # it may have ended while its memory was summed up
            guard.stop(*excess)
