"""Ctrl-C and SIGTERM during a run: a request to the engine, never an exception in the middle of its work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scheduler.engine import Engine


@contextmanager
def obey_signals(engine: Engine, say: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C finish the run, a second one or SIGTERM stop it, while the context is open.

    Signals belong to the main thread; in any other thread this does nothing.

    Args:
        engine: The engine of the run.
        say: Tells the user what happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = 0

    def on_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            engine.finish()
            say("Ctrl-C: no new trials; waiting for those that run. Press Ctrl-C again to cancel them.")
        else:
            engine.stop("stopped by Ctrl-C")

    def on_terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        engine.stop("stopped by SIGTERM")

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
