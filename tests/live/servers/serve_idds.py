"""The real iDDS server in one process, on SQLite: its Flask application in threads, its agents beside it.

Runs in the server's virtual environment. What differs from a production set-up, and why:

* Timers. The agents look every 10 s for work and otherwise spin on events of 10 microseconds. Here they look several
  times a second and rest in between.
* SQLite. Write-ahead logging, patience with locks, and the ``md5`` function that the schema asks for.
* Identity. Apache tells iDDS who a client is; over plain HTTP a wrapper says the same of everybody.

The environment says the rest: IDDS_CONFIG and its siblings, GRID_PORT, GRID_DN, GRID_REQUESTS.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

_REST_S = 0.08
_LOOK_EVERY_S = 0.5
_BUSY_MS = 30_000


class _RestingEvent(threading.Event):
    """An event whose shortest wait is long enough to leave the core to others."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(timeout if timeout is None else max(timeout, _REST_S))


def _md5(text: object) -> str:
    return hashlib.md5(str(text).encode(), usedforsecurity=False).hexdigest()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("md5", 1, _md5, deterministic=True)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")


def _hasten_agents() -> None:
    """Shorten the timers that the agents have in their code, and let their loops rest."""
    from idds.agents.common.timerscheduler import TimerScheduler

    initialize, create_task = TimerScheduler.__init__, TimerScheduler.create_task

    def initialize_resting(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        self.graceful_stop = _RestingEvent()

    def create_frequent_task(self: Any, *args: Any, delay_time: float = 10, **kwargs: Any) -> object:
        # The 10 s ones look for work; the slower ones clean up, which can stay as it is.
        return create_task(self, *args, delay_time=_LOOK_EVERY_S if delay_time == 10 else delay_time, **kwargs)

    TimerScheduler.__init__ = initialize_resting
    TimerScheduler.create_task = create_frequent_task


def _with_identity(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Say who the client is, and note the request."""
    lock = threading.Lock()
    requests = Path(os.environ["GRID_REQUESTS"])

    def identified(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        line = {
            "server": "idds",
            "time": time.time(),
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
        }
        with lock, requests.open("a") as log:
            log.write(json.dumps(line) + "\n")
        environ["SSL_CLIENT_S_DN"] = os.environ["GRID_DN"]
        environ["SSL_CLIENT_CERT"] = "a certificate"
        return application(environ, start_response)

    return identified


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    event.listen(Engine, "connect", _prepare_sqlite)
    if sys.argv[1:] == ["create"]:
        from idds.orm.base.utils import build_database

        build_database(echo=False)
        return
    _hasten_agents()
    from idds.agents.main import run_agents
    from idds.rest.v1.app import create_app
    from werkzeug.serving import make_server

    application = create_app()
    application.wsgi_app = _with_identity(application.wsgi_app)
    server = make_server("127.0.0.1", int(os.environ["GRID_PORT"]), application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run_agents()


if __name__ == "__main__":
    main()
