"""Whether somebody answers at an address, within a fixed time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urlsplit

LIMIT_S = 5.0
"""The longest that a question may take."""

_MOST_BYTES = 100_000
_FROM_SOMEBODY_BETWEEN = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        is_there: Whether anybody answered.
        words: How, or why not.
        is_trusted: Whether a certificate, if there was one, could be verified.
        body: The beginning of the text that came, if the answer was a good one.
    """

    is_there: bool
    words: str
    is_trusted: bool = True
    body: str = ""


def is_web_address(url: str) -> bool:
    """Whether this is an ``http`` or ``https`` address with a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def fetch(url: str, *, is_verified: bool = True) -> Answer:
    """Ask a web server. Any status is an answer; a certificate that cannot be verified is one too.

    Args:
        url: An ``http`` or ``https`` address.
        is_verified: Whether its certificate must be verified.
    """
    if not is_web_address(url):
        return Answer(is_there=False, words="it is no http or https address")
    context = ssl.create_default_context()
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S, context=context) as response:  # noqa: S310 - checked above
            body = response.read(_MOST_BYTES).decode(errors="replace")
            return Answer(is_there=True, words=f"HTTP {response.status}", body=body)
    except urllib.error.HTTPError as error:
        error.close()
        is_there = error.code not in _FROM_SOMEBODY_BETWEEN
        return Answer(is_there=is_there, words=f"HTTP {error.code}" + ("" if is_there else " from a proxy or gateway"))
    except urllib.error.URLError as error:
        is_certificate = isinstance(error.reason, ssl.SSLCertVerificationError)
        return Answer(is_there=is_certificate, words=str(error.reason), is_trusted=not is_certificate)
    except (OSError, HTTPException, ValueError) as error:
        return Answer(is_there=False, words=f"{type(error).__name__}: {error}")


def connect(address: str) -> Answer:
    """Open a TCP connection to ``host:port`` and close it."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), LIMIT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        return Answer(is_there=False, words=str(error))
    return Answer(is_there=True, words="connected")


def ask_all(questions: Mapping[str, Callable[[], Answer]], *, limit_s: float = LIMIT_S) -> dict[str, Answer]:
    """Ask several questions at once; those without an answer in time are answered for."""
    answers: dict[str, Answer] = {}
    threads = [
        threading.Thread(target=lambda name=name, ask=ask: answers.update({name: ask()}), daemon=True)
        for name, ask in questions.items()
    ]
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:  # a daemon: looking up a name cannot be stopped
        thread.join(max(deadline - time.monotonic(), 0))
    late = Answer(is_there=False, words=f"nothing came within {limit_s:g} s")
    known = dict(answers)
    return {name: known.get(name, late) for name in questions}
