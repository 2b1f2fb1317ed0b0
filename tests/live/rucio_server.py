"""A real Rucio server on this machine: the released server from PyPI, SQLite, and one directory as storage element."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.live.environments import environment
from tests.live.services import Service, answers, free_port

RSE = "LIVE_SCRATCHDISK"  # plain users may write to names that end like this
_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "rucio_requirements.txt"
_PATIENCE_S = 60.0
_GIGABYTE = 10**9

_SERVER_CONFIG = """\
[common]
logdir = {directory}

[database]
default = sqlite:///{directory}/rucio.db

[bootstrap]
userpass_identity = root
userpass_pwd = {password}
userpass_email = root@example.org

[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash

[alembic]
cfg = {directory}/alembic.ini
"""

_ALEMBIC_CONFIG = """\
[alembic]
script_location = {migrations}
sqlalchemy.url = sqlite:///{directory}/rucio.db

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = WARN
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""

_CLIENT_CONFIG = """\
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = {account}
password = {password}
account = {account}
auth_token_file_path = {directory}/token
request_retries = 1

[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
"""


class RucioServer:
    """A Rucio server and its storage in a directory. Use it as a context manager.

    The first use on a machine makes a virtual environment of 220 MB in ``.cache/live``; a start takes seconds.

    Args:
        directory: Everything goes there: database, logs, stored files, configurations of clients. Made if missing.

    Attributes:
        url: Where it listens; the same after :meth:`stop` and :meth:`start`.
        rse: Its only storage element.
        storage: The directory of that.

    Example::

        with RucioServer(tmp_path) as rucio:
            rucio.add_account("alice")
            subprocess.run(program, env={**os.environ, **rucio.environment("alice")})
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._passwords = {"root": secrets.token_hex(8)}
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.rse = RSE
        self.storage = self._directory / "storage"
        self._service: Service | None = None

    def __enter__(self) -> Self:
        self._python = environment("rucio-server", ["rucio", "gunicorn"], constraints=_REQUIREMENTS).python
        self._create()
        # One worker without threads: with more, SQLite refuses half of the concurrent operations as locked.
        serve = [self._python, "-m", "gunicorn", "rucio.web.rest.main:application", "--workers", "1"]
        self._service = Service(
            "rucio",
            [*serve, "--timeout", "120", "--bind", f"127.0.0.1:{self._port}", "--no-control-socket"],
            self._directory,
            is_ready=lambda: answers(f"{self.url}/ping"),
            environment=self._server_environment,
        )
        self._service.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve again, after :meth:`stop`, what there was; returns when it answers."""
        assert self._service is not None
        self._service.start()

    def stop(self) -> None:
        """Stop serving, with all its processes. May be called twice."""
        if self._service is not None:
            self._service.stop()

    def add_account(self, name: str, *, quota_bytes: int = 10 * _GIGABYTE) -> None:
        """A plain user with the scope ``user.<name>`` and, if not 0, a quota at the storage element."""
        self._passwords[name] = secrets.token_hex(8)
        self._bootstrap("account", name, self._passwords[name], self.rse, str(quota_bytes))

    def environment(self, account: str) -> Mapping[str, str]:
        """The variables that make the Rucio client of a program act as this account."""
        directory = self._directory / "clients" / account
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "rucio.cfg"
        config.write_text(
            _CLIENT_CONFIG.format(url=self.url, account=account, password=self._passwords[account], directory=directory)
        )
        return {"RUCIO_CONFIG": str(config)}

    def _create(self) -> None:
        self.storage.mkdir(parents=True)
        (migrations,) = self._python.parents[1].glob("lib/python*/site-packages/rucio/db/sqla/migrate_repo")
        names = {"directory": self._directory, "password": self._passwords["root"], "migrations": migrations}
        (self._directory / "server.cfg").write_text(_SERVER_CONFIG.format(**names))
        (self._directory / "alembic.ini").write_text(_ALEMBIC_CONFIG.format(**names))
        self._bootstrap("create", self.rse, str(self.storage))

    @property
    def _server_environment(self) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], "RUCIO_CONFIG": str(self._directory / "server.cfg")}

    def _bootstrap(self, *arguments: str) -> None:
        done = subprocess.run(
            [self._python, _HERE / "rucio_bootstrap.py", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._server_environment,
            cwd=self._directory,
            timeout=_PATIENCE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rucio_bootstrap.py {arguments[0]} failed:\n{done.stdout}")
