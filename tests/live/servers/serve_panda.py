"""The small PanDA side over HTTP: the calls that panda-client 2.2.0 and iDDS make, as the real server answers them.

Runs in the iDDS server's virtual environment, with a JSON file as its only argument. A second port is for the tests:
it lists the tasks, and closes and opens the first one, so that PanDA can be away while its jobs go on.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, request
from jedi import Jedi, Pace, RefusedError
from pilot import DirectoryCatalogue, Node, RucioCatalogue
from werkzeug.serving import BaseWSGIServer, make_server

logger = logging.getLogger(__name__)

_RELAY_FIELDS = frozenset({"command_name", "args", "kwargs", "manager", "json_outputs"})
_NO_BUILD_LIMIT = 10 * 1024 * 1024
_SOURCES_LIMIT = 768 * 1024 * 1024


def _answer(data: object = None, message: str = "") -> Response:
    """What ``/api/v1`` says on success; JSON as text, as the real server sends it."""
    return Response(json.dumps({"success": True, "message": message, "data": data}), mimetype="text/plain")


def _refusal(message: str) -> Response:
    """An application error: HTTP says 200."""
    return Response(json.dumps({"success": False, "message": message, "data": None}), mimetype="text/plain")


def _fields(given: dict[str, Any], *names: str) -> list[Any]:
    """The values of exactly these fields.

    Raises:
        RefusedError: One is missing or unknown.
    """
    if set(given) != set(names):
        raise RefusedError(f"expected the parameters {sorted(names)}, got {sorted(given)}")
    return [given[name] for name in names]


class Front:
    """What clients talk to.

    Args:
        jedi: Takes the tasks.
        cache: The directory of uploaded files.
        user: Who every client is.
        requests: The log of requests, a JSON object a line.
    """

    def __init__(self, jedi: Jedi, cache: Path, user: str, requests: Path) -> None:
        self._jedi, self._cache, self._user, self._requests = jedi, cache, user, requests
        self._lock = threading.Lock()

    def application(self) -> Flask:
        """The Flask application."""
        application = Flask("panda")
        application.before_request(self._note)
        application.register_error_handler(RefusedError, lambda error: _refusal(str(error)))
        for method, path, view in (
            ("POST", "/api/v1/file_server/upload_cache_file", self._upload),
            ("GET", "/cache/<name>", self._download),
            ("POST", "/api/v1/task/submit", self._submit),
            ("GET", "/api/v1/task/get_status", self._status),
            ("POST", "/api/v1/task/kill", self._kill),
            ("POST", "/server/panda/relay_idds_command", self._relay),
        ):
            application.add_url_rule(path, path, view, methods=[method])
        return application

    def _note(self) -> None:
        line = json.dumps({"server": "panda", "time": time.time(), "method": request.method, "path": request.path})
        with self._lock, self._requests.open("a") as log:
            log.write(line + "\n")

    def _upload(self) -> Response:
        if set(request.files) != {"file"} or request.form:
            raise RefusedError("expected exactly one file")
        file = request.files["file"]
        name = Path(file.filename or "").name
        content = file.read()
        if len(content) > (_SOURCES_LIMIT if name.startswith("sources.") else _NO_BUILD_LIMIT):
            raise RefusedError("exceeded size limit")
        if (self._cache / name).exists():
            raise RefusedError("ERROR: cannot overwrite file")
        (self._cache / name).write_bytes(content)
        return _answer()

    def _download(self, name: str) -> Response:
        path = self._cache / Path(name).name
        if not path.is_file():
            abort(404)
        # Without a content encoding: clients would unpack a .tar.gz on the way.
        return Response(path.read_bytes(), mimetype="application/octet-stream")

    def _submit(self) -> Response:
        parameters, parent = _fields(request.get_json(), "task_parameters", "parent_tid")
        task_id = self._jedi.submit(parameters, parent)
        return _answer(task_id, f"succeeded. new jediTaskID={task_id}")

    def _status(self) -> Response:
        (task_id,) = _fields(request.args.to_dict(), "task_id")
        return _answer(self._jedi.status(int(task_id)))

    def _kill(self) -> Response:
        (task_id,) = _fields(request.get_json(), "task_id")
        self._jedi.kill(int(task_id), self._user)
        return _answer(message="command=kill is registered. will be executed in a few minutes")

    def _relay(self) -> Response:
        try:
            body = json.loads(gzip.decompress(request.get_data()))
        except gzip.BadGzipFile:
            abort(500)
        if "Content-Encoding" in request.headers or not set(body) <= _RELAY_FIELDS:
            abort(500)
        return Response(_relayed(body, self._user), mimetype="text/plain")


def _relayed(body: dict[str, Any], user: str) -> str:
    """Call the iDDS client in the requester's name and wrap what it gives."""
    from idds.client.client import Client
    from idds.client.clientmanager import ClientManager
    from idds.common.utils import json_dumps, json_loads

    command, _, host = body["command_name"].partition("+")
    client = (ClientManager if body.get("manager") else Client)(host or os.environ["IDDS_HOST"])
    if not hasattr(client, command):
        return json.dumps([False, f"{command} is not a command of iDDS {type(client).__name__}"])
    try:
        args = json_loads(body["args"]) if body.get("args") else []
        kwargs = json_loads(body["kwargs"]) if body.get("kwargs") else {}
        if body.get("json_outputs") and body.get("manager"):
            client.setup_json_outputs()
        client.set_original_user(user_name=user)
        given = getattr(client, command)(*args, **kwargs)
    except Exception as error:
        logger.exception("relay of %s", command)
        return json.dumps([False, f"failed to execute command with {error}"])
    return str(json_dumps([True, given]))


class Door:
    """A server that can close its port and open it again."""

    def __init__(self, application: Flask, port: int) -> None:
        self._application, self._port = application, port
        self._server: BaseWSGIServer | None = None

    def open(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = make_server("127.0.0.1", self._port, self._application, threaded=True)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def control_application(jedi: Jedi, door: Door) -> Flask:
    """The application that tests talk to."""
    application = Flask("control")

    def acting(action: Callable[[], None]) -> Callable[[], str]:
        def act() -> str:
            action()
            return "done"

        return act

    application.add_url_rule("/tasks", "tasks", lambda: Response(json.dumps(jedi.tasks())))
    application.add_url_rule("/open", "open", acting(door.open), methods=["POST"])
    application.add_url_rule("/close", "close", acting(door.close), methods=["POST"])
    return application


def main(settings: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    directory = Path(settings["directory"])
    cache = directory / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    rucio = settings["rucio"]
    catalogue = RucioCatalogue(**rucio) if rucio else DirectoryCatalogue(Path(settings["catalogue"]))
    node = Node(directory / "jobs", settings["job_environment"], catalogue)
    jedi = Jedi(node, Pace(**settings["pace"]), settings["slots"])
    application = Front(jedi, cache, settings["user"], directory / "requests.jsonl").application()
    door = Door(application, settings["port"])
    door.open()
    make_server("127.0.0.1", settings["control_port"], control_application(jedi, door), threaded=True).serve_forever()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
