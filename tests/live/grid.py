"""The real grid on one machine: iDDS from PyPI, ActiveMQ from Debian, and a small, strict PanDA that runs the jobs.

``python -m tests.live.grid --work DIR [--broker]`` starts one by hand and prints what a client must export.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.live import environments
from tests.live.broker import BrokerAddress, broker_service, why_no_broker
from tests.live.rucio_server import RucioServer
from tests.live.services import Service, answers, free_port

_SERVERS = Path(__file__).parent / "servers"
_AGENTS = "clerk, transformer, submitter, poller, receiver, trigger, finisher, conductor"
_PERIODS = (
    "poll_period",
    "update_poll_period",
    "max_update_poll_period",
    "update_poll_period_for_new_task",
    "new_command_poll_period",
    "update_command_poll_period",
    "poll_time_period",
    "poll_operation_time_period",
)
_SUBMITTER = "idds.agents.carrier.plugins.panda.PandaSubmitterPoller"
_MESSAGING = "idds.agents.common.plugins.messaging"


@dataclass(frozen=True)
class Pace:
    """How fast the PanDA side goes, in seconds; much faster than a real one, in the same order.

    Attributes:
        young_s: How long a new task is unknown to the status call.
        queued_s: How long its jobs wait before they run.
        kill_s: How long a kill is registered before it is carried out.
        closing_s: How long a task takes from its last job's end to its final status.
    """

    young_s: float = 2.0
    queued_s: float = 0.2
    kill_s: float = 1.0
    closing_s: float = 0.5


@dataclass(frozen=True)
class Setup:
    """What kind of grid.

    Attributes:
        has_broker: Whether results travel over STOMP; otherwise over HTTP.
        keeps_results: Whether iDDS, too, listens to results on the broker and keeps them, which neither its default
            nor its helm configuration makes it do.
        tests_channel: Whether each job first tests its result channel, as the real ``run_workflow`` does: 6 s.
        slots: How many jobs run at once.
        pace: How fast the PanDA side goes.
        user: The name that the servers know the client by.
    """

    has_broker: bool = False
    keeps_results: bool = False
    tests_channel: bool = False
    slots: int = 4
    pace: Pace = Pace()
    user: str = "alice"


@dataclass(frozen=True)
class _Ports:
    idds: int = field(default_factory=free_port)
    panda: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)
    broker: int = field(default_factory=free_port)


class Grid:
    """iDDS, PanDA and perhaps a broker, each of which can be stopped and started again.

    As a context manager it runs inside the ``with``. Stopping keeps the state: iDDS has its database, and the jobs of
    a PanDA that does not answer go on.

    Args:
        work: Where everything is written; a new or empty directory.
        setup: What kind of grid.
        rucio: Where output files go and input files come from, with an account of the user's name; None for
            directories, see :meth:`files`.
    """

    def __init__(self, work: Path, setup: Setup | None = None, rucio: RucioServer | None = None) -> None:
        self._work, self._setup, self._ports, self._rucio = work.absolute(), setup or Setup(), _Ports(), rucio
        self._server, self._client = environments.idds_server(), environments.panda_client()
        self.catalogue = self._work / "catalogue"
        self._idds = self._idds_service()
        self._panda = self._panda_service()
        self._broker = broker_service(self._work / "broker", self._ports.broker) if self._setup.has_broker else None

    @property
    def python(self) -> Path:
        """The interpreter that has our package and the client packages."""
        return self._client.python

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs besides its own."""
        panda = f"http://127.0.0.1:{self._ports.panda}/server/panda"
        return {
            "PANDA_URL": panda,
            "PANDA_URL_SSL": panda,
            "PANDACACHE_URL": panda,
            "PANDAMON_URL": "http://monitor.invalid",
            "PANDA_AUTH": "x509_no_grid",
            "PANDA_BEHIND_REAL_LB": "1",
            "PANDA_VERIFY_HOST": "off",
            "PANDA_CONFIG_ROOT": str(self._home),
            "IDDS_HOST": f"http://127.0.0.1:{self._ports.idds}",
            "IDDS_LOCAL_CONFIG_ROOT": str(self._home),
            "X509_USER_PROXY": str(self._home / "proxy.pem"),
        }

    @property
    def broker_address(self) -> BrokerAddress:
        """Where the broker listens, if there is one."""
        return BrokerAddress(self._ports.broker)

    def __enter__(self) -> Self:
        self._write_settings()
        try:
            others = [service for service in (self._broker, self._panda) if service is not None]
            for service in others:
                service.launch()
            self._run_idds("create")
            self._idds.launch()
            for service in (*others, self._idds):
                service.wait()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()

    def stop_idds(self) -> None:
        """Let iDDS be away, agents and all."""
        self._idds.stop()

    def start_idds(self) -> None:
        """Have iDDS back, with its database."""
        self._idds.start()

    def stop_broker(self) -> None:
        """Let the broker be away; what it had is gone."""
        assert self._broker is not None, "this grid has no broker"
        self._broker.stop()

    def start_broker(self) -> None:
        """Have the broker back."""
        assert self._broker is not None, "this grid has no broker"
        self._broker.start()

    def stop_panda(self) -> None:
        """Let the PanDA server refuse connections; its jobs go on."""
        self._control("/close", method="POST")

    def start_panda(self) -> None:
        """Have the PanDA server back."""
        self._control("/open", method="POST")

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks that PanDA got, in order: ``task_id``, ``parameters`` as iDDS emitted them, ``status``,
        ``history``, ``failures``, ``attempts``, ``parent_id``."""
        return list(json.loads(self._control("/tasks")))

    def requests(self) -> list[dict[str, Any]]:
        """The HTTP requests so far, in order of time: ``server`` ("panda", "idds"), ``time``, ``method``, ``path``.

        Those to iDDS include the ones that PanDA relayed; PanDA's own log tells them apart.
        """
        logs = (self._work / name / "requests.jsonl" for name in ("idds", "panda"))
        lines = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
        return sorted(lines, key=lambda line: float(line["time"]))

    def files(self, dataset: str) -> list[Path]:
        """The files of an output dataset that is a directory, in order."""
        directory = self.catalogue / dataset.rpartition(":")[2].rstrip("/")
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))

    def payload_log(self, task_id: int) -> str:
        """What the jobs of a task printed so far, one after the other."""
        directory = self._work / "panda" / "jobs" / str(task_id)
        return "\n".join(log.read_text(errors="replace") for log in sorted(directory.glob("*/payload.log")))

    @property
    def _home(self) -> Path:
        return self._work / "client"

    def _stop_all(self) -> None:
        for service in (self._idds, self._panda, self._broker):
            if service is not None:
                service.stop()

    def _control(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self._ports.control}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30.0) as reply:  # noqa: S310  # http on this machine
            return bytes(reply.read())

    def _write_settings(self) -> None:
        for directory in (self._home, self.catalogue, self._work / "idds" / "logs", self._work / "panda" / "bin"):
            directory.mkdir(parents=True, exist_ok=True)
        (self._home / "proxy.pem").write_text("no certificate: these servers speak plain HTTP\n")
        self._write_idds_settings()
        self._write_panda_settings()

    # iDDS

    def _idds_service(self) -> Service:
        return Service(
            "idds",
            [self._server.python, _SERVERS / "serve_idds.py"],
            self._work / "idds",
            lambda: answers(f"http://127.0.0.1:{self._ports.idds}/ping"),
            self._idds_environment(),
        )

    def _idds_environment(self) -> dict[str, str]:
        directory = self._work / "idds"
        return {
            **self.environment,
            "HOME": str(directory),
            "IDDS_HOME": str(directory),
            "IDDS_CONFIG": str(directory / "idds.cfg"),
            "IDDS_AUTH_CONFIG": str(directory / "auth.cfg"),
            "IDDS_PANDA_CONFIG": str(directory / "panda.cfg"),
            "ALEMBIC_CONFIG": str(directory / "alembic.ini"),
            "GRID_PORT": str(self._ports.idds),
            "GRID_DN": f"/CN={self._setup.user}",
            "GRID_REQUESTS": str(directory / "requests.jsonl"),
        }

    def _run_idds(self, *words: str) -> None:
        done = subprocess.run(
            [self._server.python, _SERVERS / "serve_idds.py", *words],
            cwd=self._work / "idds",
            env={"PATH": "/usr/bin:/bin", **self._idds_environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"iDDS did not {' '.join(words)} its database:\n{done.stdout}\n{done.stderr}")

    def _write_idds_settings(self) -> None:
        directory = self._work / "idds"
        database = f"sqlite:///{directory / 'idds.db'}"
        _write_ini(directory / "idds.cfg", self._idds_sections(directory, database))
        _write_ini(
            directory / "auth.cfg",
            {"common": {"allow_vos": "wlcg"}, "Users": {"allow_users": "CN=", "super_users": self._setup.user}},
        )
        _write_ini(directory / "panda.cfg", {"panda": {"panda_auth": "x509_no_grid"}})
        shipped = (self._server.directory / "config_default" / "alembic.ini").read_text()
        alembic = configparser.RawConfigParser()
        alembic.read_string(shipped)
        alembic["alembic"]["sqlalchemy.url"] = database
        alembic.remove_option("alembic", "version_table_schema")  # SQLite has none
        with (directory / "alembic.ini").open("w") as file:
            alembic.write(file)

    def _idds_sections(self, directory: Path, database: str) -> dict[str, Mapping[str, str]]:
        # Events announce new work. Looking for it as often would find what is being submitted, and submit it twice.
        frequently = {**dict.fromkeys(_PERIODS, "1"), "new_poll_period": "10", "max_new_poll_period": "10"}
        plugins = ("iwork_submitter", "iwork_poller", "iworkflow_submitter", "iworkflow_poller")
        return {
            "common": {"loglevel": "INFO", "logdir": str(directory / "logs")},
            "database": {"default": database, "pool_size": "20", "max_overflow": "40", "echo": "0"},
            "rest": {"host": self.environment["IDDS_HOST"], "cacher_dir": str(directory)},
            "main": {"agents": _AGENTS},
            "eventbus": {"backend": "default"},
            "clerk": {"num_threads": "4", "max_number_workers": "4", "pending_time": "30", **frequently},
            "transformer": {"num_threads": "4", **frequently},
            "carrier": {
                "num_threads": "4",
                "max_number_workers": "4",
                **frequently,
                **{f"plugin.{name}": _SUBMITTER for name in plugins},
                "plugin.receiver": f"{_MESSAGING}.MessagingReceiver",
                "plugin.receiver.channels": json.dumps(self._channels()),
            },
            "conductor": {
                "delay": "1",
                "random_delay": "1",
                "plugin.notifier": f"{_MESSAGING}.MessagingSender",
                "plugin.notifier.channels": json.dumps({"default": self._channel("/queue/idds.notifications")}),
            },
            "asyncresult": self.broker_address.settings() if self._setup.has_broker else {},
        }

    def _channels(self) -> dict[str, object]:
        default = {"default": self._channel("/topic/doma.panda_idds")}
        kept = {"asyncresult": self._channel(self.broker_address.destination)} if self._setup.keeps_results else {}
        return {**default, **kept}

    def _channel(self, destination: str) -> dict[str, object]:
        address = self.broker_address
        return {
            "brokers": [f"127.0.0.1:{address.port}"] if self._setup.has_broker else [],
            "destination": destination,
            "username": address.username,
            "password": address.password,
            "broker_timeout": 60,
        }

    # PanDA

    def _panda_service(self) -> Service:
        directory = self._work / "panda"
        return Service(
            "panda",
            [self._server.python, _SERVERS / "serve_panda.py", directory / "settings.json"],
            directory,
            lambda: answers(f"http://127.0.0.1:{self._ports.control}/tasks"),
            {**self.environment, "HOME": str(directory), "IDDS_CONFIG": str(self._work / "idds" / "idds.cfg")},
        )

    def _write_panda_settings(self) -> None:
        directory = self._work / "panda"
        if not self._setup.tests_channel:
            quick = directory / "bin" / "run_workflow"
            quick.write_text(f'#!/bin/bash\nexec "{self.python}" "{_SERVERS / "run_workflow_quickly.py"}" "$@"\n')
            quick.chmod(0o755)
        settings = {
            "directory": str(directory),
            "catalogue": str(self.catalogue),
            "port": self._ports.panda,
            "control_port": self._ports.control,
            "user": self._setup.user,
            "slots": self._setup.slots,
            "pace": asdict(self._setup.pace),
            "job_environment": self._job_environment(directory),
            "rucio": self._rucio_settings(directory),
        }
        (directory / "settings.json").write_text(json.dumps(settings, indent=2))

    def _rucio_settings(self, directory: Path) -> dict[str, object] | None:
        if self._rucio is None:
            return None
        access = self._rucio.environment(self._setup.user)
        return {
            "python": str(environments.rucio_client().python),
            "rse": self._rucio.rse,
            "environment": {"PATH": "/usr/bin:/bin", "HOME": str(directory), **access},
        }

    def _job_environment(self, directory: Path) -> dict[str, str]:
        """What a pilot gives its payload: no address of a server; those come with the task."""
        programs = (directory / "bin", self._client.directory / "bin", Path("/usr/bin"), Path("/bin"))
        return {
            "PATH": ":".join(map(str, programs)),
            "LANG": "C.UTF-8",
            "X509_USER_PROXY": self.environment["X509_USER_PROXY"],
            "PANDA_AUTH": "x509_no_grid",
            "OMP_NUM_THREADS": "1",
            "GRID_RUN_WORKFLOW": str(self._client.program("run_workflow")),
        }


def _write_ini(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    parser = configparser.RawConfigParser()
    parser.read_dict(sections)
    with path.open("w") as file:
        parser.write(file)


def _wait_for_the_end() -> None:
    """Until Ctrl-C or a polite kill."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


def main() -> None:
    """Start a grid by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.grid", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a new directory for all its files")
    parser.add_argument("--broker", action="store_true", help="with ActiveMQ: results travel over STOMP")
    parser.add_argument(
        "--full", action="store_true", help="jobs test their result channel first, as real ones do: 6 s"
    )
    options = parser.parse_args()
    missing = why_no_broker() if options.broker else None
    if missing:
        parser.error(missing)
    with Grid(options.work, Setup(has_broker=options.broker, tests_channel=options.full)) as grid:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in grid.environment.items()]
        lines.append(f"# python: {grid.python}")
        (options.work / "environment.sh").write_text("\n".join(lines) + "\n")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            _wait_for_the_end()


if __name__ == "__main__":
    main()
