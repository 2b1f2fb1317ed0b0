"""Where news waits for the engine: the only place where the engine sleeps."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

News = Callable[[], None]
"""What the engine's thread shall do about something that happened elsewhere."""


class Mailbox:
    """A clock and a queue of news. Any thread may post; only the engine's thread takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[News] = queue.SimpleQueue()

    def now(self) -> float:
        """Seconds since the epoch: the time of events, comparable after a restart."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps: the time of intervals."""
        return time.monotonic()

    def post(self, news: News) -> None:
        """Leave news. Safe in any thread and in a signal handler."""
        self._queue.put(news)

    def take(self, timeout: float | None) -> list[News]:
        """All news there is; waits up to ``timeout`` seconds (None: for ever) for the first."""
        news: list[News] = []
        try:
            news.append(
                self._queue.get(timeout=timeout) if timeout is None or timeout > 0 else self._queue.get_nowait()
            )
            while True:
                news.append(self._queue.get_nowait())
        except queue.Empty:
            return news
