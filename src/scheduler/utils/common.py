"""Conveniences of existing programs."""

from __future__ import annotations

import logging
import sys

from scheduler.errors import ConfigurationError

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_HANDLER = "scheduler.setup_logging"
_CHATTY = ("asyncio", "ax", "botorch", "filelock", "linear_operator", "httpx", "matplotlib", "stomp", "urllib3")


def setup_logging(log_file: str | None = None, log_level: str | int | None = None) -> None:
    """Send the log messages of the program and of the scheduler to the terminal or a file.

    Meant for programs; the library itself never calls it. A second call replaces what the first one set up. Libraries
    that talk a lot (Ax among them) are heard from WARNING on, whatever the level.

    Args:
        log_file: Append to this file instead of writing to stderr.
        log_level: Name ("debug") or number of the lowest level shown; default "info".

    Raises:
        ConfigurationError: There is no such level.
    """
    level = _level(log_level)
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.name == _HANDLER]:
        root.removeHandler(old)
        old.close()
    handler = logging.FileHandler(log_file) if log_file else logging.StreamHandler(sys.stderr)
    handler.set_name(_HANDLER)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root.addHandler(handler)
    root.setLevel(level)
    for name in _CHATTY:
        chatty = logging.getLogger(name)
        chatty.setLevel(max(level, logging.WARNING))
        for handler_of_its_own in chatty.handlers:  # Ax has one, and its loggers have levels of their own
            handler_of_its_own.setLevel(max(level, logging.WARNING))


def _level(given: str | int | None) -> int:
    if given is None:
        return logging.INFO
    level = given if isinstance(given, int) else logging.getLevelNamesMapping().get(given.upper())
    if level is None:
        raise ConfigurationError(f"log_level {given!r} is no level; use debug, info, warning, error or critical")
    return level
