"""A world without threads and without waiting, for tests of engines and runners.

Time passes only when nobody has anything left to do, and then jumps to the next moment at which somebody has.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import TypeVar

from scheduler.engine.mailbox import Mailbox, News

T = TypeVar("T")


class SimulatedMailbox(Mailbox):
    """A mailbox with a clock of its own, which is also an alarm clock.

    Args:
        start: The time at which the world begins, seconds since the epoch.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        super().__init__()
        self._now = start
        self._alarms: list[tuple[float, int, News]] = []
        self._serial = itertools.count()

    def now(self) -> float:
        """The simulated time."""
        return self._now

    def monotonic(self) -> float:
        """The simulated time."""
        return self._now

    def at(self, time: float, news: News) -> None:
        """Have news delivered when the time has come."""
        heapq.heappush(self._alarms, (time, next(self._serial), news))

    def take(self, timeout: float | None) -> list[News]:
        """All news there is; otherwise time jumps to the next alarm or the end of the timeout.

        Raises:
            AssertionError: There is nothing to wait for: the engine would sleep for ever.
        """
        news = super().take(0)
        if news:
            return news
        next_alarm = self._alarms[0][0] if self._alarms else None
        end = None if timeout is None else self._now + timeout
        assert next_alarm is not None or end is not None, "the engine sleeps and nothing will ever wake it"  # noqa: S101
        self._now = max(self._now, min(time for time in (next_alarm, end) if time is not None))
        while self._alarms and self._alarms[0][0] <= self._now:
            news.append(heapq.heappop(self._alarms)[2])
        return news


class InlineLane:
    """A lane that carries out calls at once, in the caller's thread. The outcome still comes by mail."""

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self.name = name
        self._mailbox = mailbox

    def call(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        """See :meth:`scheduler.engine.lane.Lane.call`."""
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - handed to the caller, as every lane does
            caught = error
            self._mailbox.post(lambda: otherwise(caught))
        else:
            self._mailbox.post(lambda: then(value))

    def close(self) -> None:
        """See :meth:`scheduler.engine.lane.Lane.close`."""
