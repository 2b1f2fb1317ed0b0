"""A thread of its own for everything that may be slow or hang: one runner, or the optimizer."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from scheduler.engine.mailbox import Mailbox

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Lane(Protocol):
    """Carries out calls one after the other, elsewhere, and brings the outcome home."""

    def call(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        """Queue a call.

        Args:
            work: Runs in the lane.
            then: Runs in the engine's thread with what ``work`` returned.
            otherwise: Runs in the engine's thread with what ``work`` raised.
        """
        ...

    def close(self) -> None:
        """Take no more calls. A call under way is not waited for."""
        ...


class ThreadLane:
    """A lane with a daemon thread, so that a call that hangs cannot keep the program from ending."""

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"scheduler-{name}", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T], then: Callable[[T], None], otherwise: Callable[[Exception], None]) -> None:
        """See :meth:`Lane.call`."""

        def carry_out() -> None:
            try:
                value = work()
            except Exception as error:
                logger.debug("a call of %s failed", self._thread.name, exc_info=True)
                caught = error
                self._mailbox.post(lambda: otherwise(caught))
            else:
                self._mailbox.post(lambda: then(value))

        self._calls.put(carry_out)

    def close(self) -> None:
        """See :meth:`Lane.close`."""
        self._calls.put(None)

    def _run(self) -> None:
        while (carry_out := self._calls.get()) is not None:
            carry_out()
