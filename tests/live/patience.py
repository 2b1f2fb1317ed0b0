"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], what: str, within_s: float = 150.0) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: It is not true in time; the message says what was waited for.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.1)
