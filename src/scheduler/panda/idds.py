"""The client of PanDA and iDDS: the only module that imports ``idds`` and ``pandaclient``.

The packages build and serialise the objects, which is the protocol. What else they do (threads and connections for each
job, retries that sleep, errors turned into states) is left to them: here a call is one request, and it either answers
or raises.

* :class:`~scheduler.errors.RunnerUnavailableError`: no answer, or no valid credential; the same call may succeed later.
* :class:`~scheduler.errors.RunnerError`: the service understood and refused.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

from scheduler.errors import ConfigurationError, RunnerError, RunnerUnavailableError
from scheduler.panda.grid_names import internal_id
from scheduler.panda.grid_replies import Result, Transform, request_ids_in, results_in, transforms_in, user_in
from scheduler.panda.login import TOKEN_VARIABLES, Oidc, provider_of, renew
from scheduler.runners.base_runner import OutputOrder

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60
_HTTP_OK = 200
_ALL = "null"
"""What iDDS takes for "any" in the path of a request."""

_BROKER_VARIABLES = {
    "brokers": "IDDS_BROKERS",
    "broker_destination": "IDDS_BROKER_DESTINATION",
    "broker_username": "IDDS_BROKER_USERNAME",
    "broker_password": "IDDS_BROKER_PASSWORD",
}
_JOB_VARIABLES_IDDS = ("IDDS_HOST", "IDDS_AUTH_NO_VERIFY")
_JOB_VARIABLES_PANDA = (
    "PANDA_URL_SSL",
    "PANDA_URL",
    "PANDACACHE_URL",
    "PANDAMON_URL",
    "PANDA_VERIFY_HOST",
    "PANDA_BEHIND_REAL_LB",
)
_REFUSALS = re.compile(
    r"not correct for request|doesn't support|is not found|Cannot decode|is required|too large", re.IGNORECASE
)
_CREDENTIALS = re.compile(
    r"authenticat|no ?permission|permission denied|expired|unauthori[sz]ed|x509 proxy|oidc token|credentials|"
    r"Token .* cannot be loaded|HTTP 40[13]\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where results are published.

    Attributes:
        addresses: ``host:port``, several of them separated by commas.
        destination: The topic.
        username: Who may read it.
        password: Never shown.
    """

    addresses: str
    destination: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Broker({self.addresses!r}, {self.destination!r})"


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how the works of a workflow run.

    Attributes:
        cloud: PanDA cloud.
        queue: PanDA queue.
        vo: Virtual organization.
        init_env: What the job runs in its shell before anything else; ends with ``;``.
        enable_separate_log: Keep logs apart from outputs.
    """

    cloud: str
    queue: str
    vo: str
    init_env: str
    enable_separate_log: bool


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """One work: what it runs, on what, and which datasets it reads and writes.

    Attributes:
        name: Its name, also its key.
        function: ``<file>:<module>:<qualified name>`` in the files that ship.
        args: Positional arguments; they travel as a pickle that we make and only the job reads.
        kwargs: Keyword arguments, likewise.
        source_url: Where the job finds the tarball.
        cores: Cores of a job.
        memory_mb: Memory of a job, in MB.
        walltime_s: Time limit of a job, in seconds.
        inputs: Argument name -> dataset.
        output: The dataset to produce, if any.
        follows: The internal id of a work of the same workflow: PanDA holds the task of this one back until that one's
            is over.
    """

    name: str
    function: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    source_url: str
    cores: int
    memory_mb: int
    walltime_s: int
    inputs: Mapping[str, str]
    output: OutputOrder | None = None
    follows: str | None = None


@dataclass(frozen=True, slots=True)
class OpenWorkflow:
    """A workflow that iDDS has accepted and that takes works.

    Attributes:
        request_id: Its number.
        user: The name under which the service knows the user; tasks of this name may be killed by the user.
        context: The client packages' own object.
    """

    request_id: int
    user: str | None
    context: Any


class _Transport(Protocol):
    """A way to the commands of iDDS."""

    def submit(self, workflow: object) -> object:
        """Make a request; its number."""

    def submit_work(self, request_id: int, work: object) -> object:
        """Add a work; its number."""

    def read(self, command: str, **arguments: object) -> object:
        """Ask for something, as plain JSON types: nothing in an answer is ever made into an object."""


class IddsClient:
    """Talks to PanDA and iDDS. Every method may be called in any thread.

    Args:
        service: ``"panda"`` to reach iDDS through PanDA's relay, ``"idds"`` to reach it directly.

    Raises:
        ConfigurationError: The packages are not installed, or the service is not configured.
        RunnerUnavailableError: The host of the service cannot be resolved.
    """

    def __init__(self, service: str) -> None:
        check_configuration(service)
        self._service = service
        self._packages = _import_packages()
        self._credential_lock = threading.Lock()
        self._transport: _Transport = _Relay(self._packages) if service == "panda" else _Direct(self._packages)

    def broker(self) -> Broker | None:
        """Where results are published; None when they only go over HTTP."""
        given = {name: os.environ.get(variable) for name, variable in _BROKER_VARIABLES.items()}
        if not all(given.values()):
            reply = self._read("get_metainfo", name="asyncresult_config")
            given = dict(reply) if isinstance(reply, Mapping) else {}
        wanted = [given.get(name) for name in _BROKER_VARIABLES]
        return Broker(*map(str, wanted)) if all(wanted) else None

    def upload(self, tarball: Path, name: str) -> str:
        """Put a tarball into PanDA's cache under a new name; where jobs find it.

        Raises:
            RunnerError: The cache refused it: too large, or the name exists.
        """
        self._check_credential()
        link = tarball.with_name(name)  # the name of the file is the name in the cache
        link.symlink_to(tarball.name)
        try:
            with _unchanged_logging():
                status, text = _without_exit(lambda: self._packages.panda.putFile(str(link), verbose=False))
        finally:
            link.unlink()
        if status != 0:
            raise _trouble(f"PanDA's cache did not take {tarball}: {_shorten(text)}")
        if text != "True":
            raise RunnerError(f"PanDA's cache refused {tarball} ({tarball.stat().st_size} bytes): {_shorten(text)}")
        return f"{_cache_url().rstrip('/')}/cache/{name}"

    def open_workflow(self, name: str, site: Site, broker: Broker | None) -> OpenWorkflow:
        """Make a workflow that takes works."""
        self._check_credential()
        context = self._context(name, site, broker)
        workflow = self._packages.Workflow(context=context, name=name, service=self._service, json_load=True)
        request_id = _number(self._transport.submit(workflow), "a request id")
        user = user_in(self._read("get_requests", request_id=request_id))
        context.request_id = request_id
        # iDDS submits the tasks under this name; under any other the user could not kill them.
        context.username = user
        return OpenWorkflow(request_id, user, context)

    def submit(self, workflow: OpenWorkflow, order: WorkOrder) -> int:
        """Add a work to a workflow; its transform id."""
        self._check_credential()
        return _number(self._transport.submit_work(workflow.request_id, self._work(workflow, order)), "a transform id")

    def transforms(self, request_id: int) -> list[Transform]:
        """All works of a request, in one call.

        The command that is made for it does not work in iDDS 2.6 (it is called with an argument that it does not
        take), and what it would give is 12 KB for each work; the details of the request have a short row for each.
        """
        return transforms_in(self._read("get_requests", request_id=request_id, with_detail=True))

    def results(self, request_id: int, transform_id: int | None = None) -> list[Result]:
        """What jobs of a request, or of one of its works, have published and the server has kept."""
        reply = self._read(
            "get_messages",
            request_id=request_id,
            transform_id=_ALL if transform_id is None else transform_id,
            internal_id=_ALL,
        )
        return results_in(reply)

    def request_ids(self, pattern: str) -> list[int]:
        """The requests whose names match, ``*`` standing for anything; oldest first."""
        return request_ids_in(self._read("get_request_id_by_name", name=pattern))

    def task_status(self, task_id: int) -> str | None:
        """PanDA's state of a task; None for a task that is too young to be known."""
        answer = self._ask_panda("get", "task/get_status", task_id=task_id)
        status = answer.get("data")
        return status if answer.get("success") and isinstance(status, str) else None

    def kill(self, task_id: int) -> str | None:
        """Ask PanDA to end a task. Carried out later; :meth:`task_status` tells when.

        Returns:
            Why it was refused, or None when it was accepted.
        """
        answer = self._ask_panda("post", "task/kill", task_id=task_id)
        return None if answer.get("success") else str(answer.get("message"))

    def _ask_panda(self, method: str, endpoint: str, **data: object) -> Mapping[str, object]:
        """One request to PanDA. Its own functions print to standard output and do not tell an outage from a "no"."""
        self._check_credential()
        panda = self._packages.panda
        url = f"{panda.server_base_path_ssl}/{endpoint}"
        call = getattr(panda._HttpClient(), method)  # noqa: SLF001
        try:
            code, answer = _without_exit(lambda: call(url, data, json_out=True))
        except ValueError as error:
            raise RunnerUnavailableError(
                f"PanDA answered '{endpoint}' with something else than JSON: {error}"
            ) from error
        if code != 0 or not isinstance(answer, Mapping):
            raise _trouble(f"PanDA did not answer '{endpoint}' (HTTP {code}): {_shorten(answer)}")
        return answer

    def _read(self, command: str, **arguments: object) -> object:
        self._check_credential()
        return self._transport.read(command, **arguments)

    def _context(self, name: str, site: Site, broker: Broker | None) -> Any:  # noqa: ANN401 - an object of the packages
        context = self._packages.WorkflowContext(
            name=name,
            service=self._service,
            workflow_type=self._packages.WorkflowType.iWorkflowLocal,
            distributed=True,
            init_env=site.init_env or None,
            enable_separate_log=site.enable_separate_log,
            cloud=site.cloud,
            queue=site.queue,
            vo=site.vo,
        )
        # The packages copy OIDC_AUTH_ID_TOKEN and paths of this machine into what becomes visible job parameters.
        context.idds_env = _environment(_JOB_VARIABLES_IDDS)
        context.panda_env = _environment(_JOB_VARIABLES_PANDA)
        if broker is not None:
            context.brokers, context.broker_destination = broker.addresses, broker.destination
            context.broker_username, context.broker_password = broker.username, broker.password
            context._broker_initialized = True  # noqa: SLF001 - else each job would ask the service once more
        return context

    def _work(self, workflow: OpenWorkflow, order: WorkOrder) -> Any:  # noqa: ANN401 - an object of the packages
        context = copy.copy(workflow.context)  # several tarballs may belong to a workflow
        context.remote_source_file = order.source_url
        output = order.output
        work = self._packages.Work(
            func=order.function,
            workflow_context=context,
            args=order.args,
            kwargs=dict(order.kwargs),
            name=order.name,
            job_key=order.name,
            map_results=True,
            enable_separate_log=context.enable_separate_log,
            input_datasets=dict(order.inputs) or None,
            output_dataset_name=None if output is None else output.dataset,
            output_file_name=None if output is None else output.file,
            num_events=None if output is None else output.num_events,
            num_events_per_job=None if output is None else output.num_events_per_job,
            parent_internal_id=order.follows,
            json_load=True,  # its only effect: the arguments are not written into the log
        )
        work.internal_id = internal_id(order.name)
        work.core_count, work.max_walltime, work.total_memory = order.cores, order.walltime_s, order.memory_mb
        # One try: an attempt of ours is one task that runs once, and retries are counted where they are asked for.
        work.max_attempt = 1
        return work

    def _check_credential(self) -> None:
        """Make sure of a token without ever asking on the terminal, which the client package would do.

        Raises:
            RunnerUnavailableError: There is none, or it has expired; with what to do.
        """
        if os.environ.get("PANDA_AUTH") != "oidc":
            return
        if any(os.environ.get(name) for name in TOKEN_VARIABLES):
            return
        with self._credential_lock:
            _refresh_token(self._packages)


def check_configuration(service: str) -> None:
    """Refuse a service that is not configured.

    Raises:
        ConfigurationError: With the variables that are missing.
    """
    wanted = ["PANDA_URL_SSL"] if service == "panda" else ["PANDA_URL_SSL", "IDDS_HOST"]
    missing = [name for name in wanted if not os.environ.get(name)]
    if missing:
        raise ConfigurationError(
            f"service={service!r} needs {' and '.join(missing)} in the environment: source the set-up script of your "
            'PanDA service (for BNL: setup_panda_bnl.sh), or use service="local" to run on this machine'
        )


def monitor_link(task_id: int) -> str:
    """Where a person looks at a task."""
    monitor = os.environ.get("PANDAMON_URL")
    return f"{monitor.rstrip('/')}/task/{task_id}" if monitor else f"PanDA task {task_id}"


class _Relay:
    """iDDS through the PanDA server, which knows the user."""

    def __init__(self, packages: SimpleNamespace) -> None:
        self._packages = packages
        self._host = os.environ.get("IDDS_HOST")

    def submit(self, workflow: object) -> object:
        return self._call("submit", workflow, username=None, use_dataset_name=False)

    def submit_work(self, request_id: int, work: object) -> object:
        return self._call("submit_work", request_id, work, use_dataset_name=False)

    def read(self, command: str, **arguments: object) -> object:
        reply = self._call(command, **arguments)
        # Some commands have a success flag of their own.
        return reply[1] if isinstance(reply, list) and reply[:1] == [True] else reply

    def _call(self, command: str, *args: object, **kwargs: object) -> object:
        name = f"{command}+{self._host}" if self._host else command
        status, reply = _without_exit(
            lambda: self._packages.panda.call_idds_command(
                name, args, kwargs, dumper=self._packages.json_dumps, compress=True, manager=True
            )
        )
        if status != 0:
            raise _trouble(f"PanDA did not relay '{command}' to iDDS: {_shorten(reply)}")
        match reply:
            case [True, [False, message]]:
                raise _trouble(f"iDDS did not carry out '{command}': {_shorten(message)}")
            case [True, answer]:
                return _decoded(answer)
            case _:
                raise _trouble(f"PanDA did not relay '{command}' to iDDS: {_shorten(reply)}")


class _Direct:
    """iDDS by its own address."""

    def __init__(self, packages: SimpleNamespace) -> None:
        self._packages = packages
        self._managers = threading.local()

    def submit(self, workflow: object) -> object:
        return self._call("submit", workflow, use_dataset_name=False)

    def submit_work(self, request_id: int, work: object) -> object:
        return self._call("submit_work", request_id, work, use_dataset_name=False)

    def read(self, command: str, **arguments: object) -> object:
        client = self._manager().client
        url = client.build_url(client.host, path=_path(command, arguments))
        with self._answering(command):
            response = client.get_request_response(url, type="GET", return_result_directly=True)
        if response.status_code != _HTTP_OK:
            text = response.headers.get("ExceptionMessage") or response.text
            raise _trouble(f"iDDS did not carry out '{command}' (HTTP {response.status_code}): {_shorten(text)}")
        return json.loads(response.text or "null")

    def _call(self, command: str, *args: object, **kwargs: object) -> object:
        manager = self._manager()
        # Unwrapped, because the wrapper turns every exception into a return value.
        call = inspect.unwrap(getattr(type(manager), command))
        with self._answering(command):
            return call(manager, *args, **kwargs)

    def _manager(self) -> Any:  # noqa: ANN401 - an object of the packages
        manager = getattr(self._managers, "manager", None)
        if manager is None:
            manager = self._packages.ClientManager(host=os.environ["IDDS_HOST"], timeout=_TIMEOUT_S)
            with self._answering("log in"):
                manager.setup_client()
            manager.client.retries = 1  # more of them sleep up to half a minute; the engine repeats the call
            self._managers.manager = manager
        return manager

    @contextmanager
    def _answering(self, command: str) -> Iterator[None]:
        try:
            with _unchanged_logging():
                yield
        except (self._packages.IDDSException, OSError) as error:  # requests' exceptions are OSErrors
            raise _trouble(f"iDDS did not carry out '{command}': {_shorten(error)}") from error


def _path(command: str, arguments: Mapping[str, object]) -> str:
    """The path of a question in the REST interface of iDDS."""
    match command:
        case "get_metainfo":
            return f"metainfo/{arguments['name']}"
        case "get_messages":
            return f"message/{arguments['request_id']}/{_ALL}/{arguments['transform_id']}/{arguments['internal_id']}"
        case "get_requests":
            return f"request/{arguments['request_id']}/{_ALL}/{arguments.get('with_detail', False)}/False/False/False"
        case "get_request_id_by_name":
            return f"request/name/{arguments['name']}"
        case _:
            raise ValueError(command)


def _import_packages() -> SimpleNamespace:
    """The client packages, imported without what they do to the program's logging and warnings."""
    with _import_errors_explained(), _unchanged_logging(), warnings.catch_warnings():
        work = importlib.import_module("idds.iworkflow.work")
        workflow = importlib.import_module("idds.iworkflow.workflow")
        manager = importlib.import_module("idds.client.clientmanager")
        constants = importlib.import_module("idds.common.constants")
        exceptions = importlib.import_module("idds.common.exceptions")
        utils = importlib.import_module("idds.common.utils")
        panda = importlib.import_module("pandaclient.Client")
    # Without a handler of its own it would get one that writes to standard output.
    logging.getLogger("panda-client").addHandler(logging.NullHandler())
    return SimpleNamespace(
        Work=work.Work,
        Workflow=workflow.Workflow,
        WorkflowContext=workflow.WorkflowContext,
        WorkflowType=constants.WorkflowType,
        ClientManager=manager.ClientManager,
        IDDSException=exceptions.IDDSException,
        json_dumps=utils.json_dumps,
        panda=panda,
    )


@contextmanager
def _import_errors_explained() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"the client packages of PanDA and iDDS are not installed ({error}): pip install 'aid2e-scheduler[panda]'"
        ) from error
    except OSError as error:
        raise RunnerUnavailableError(f"the host of the PanDA service cannot be resolved: {error}") from error


@contextmanager
def _unchanged_logging() -> Iterator[None]:
    """Keep the packages from setting up the root logger, which they do at import and with many a call."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    if not handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)  # what an empty root logger uses anyway, and it is no longer empty
    try:
        yield
    finally:
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)


def _without_exit(call: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
    """Call the PanDA client, which ends the program when it has no credential."""
    try:
        return call()
    except SystemExit as error:
        raise RunnerUnavailableError(_LOG_IN) from error
    except OSError as error:
        raise RunnerUnavailableError(f"PanDA does not answer: {error}") from error


def open_oidc() -> Oidc:
    """What panda-client knows of the user's token and of the service that gives it.

    Raises:
        ConfigurationError: panda-client is not installed.
        RunnerUnavailableError: The host of the service cannot be resolved.
    """
    with _import_errors_explained(), _unchanged_logging():
        return _oidc(importlib.import_module("pandaclient.Client"))


def _oidc(panda: Any) -> Oidc:  # noqa: ANN401 - a module of the packages
    logger_of_panda = logging.getLogger("panda-client")
    logger_of_panda.addHandler(logging.NullHandler())
    return cast("Oidc", panda._HttpClient().get_oidc(logger_of_panda))  # noqa: SLF001 - no other way


def _refresh_token(packages: SimpleNamespace) -> None:
    with _unchanged_logging():
        oidc = _oidc(packages.panda)
        is_valid, refresh, _ = oidc.check_token()
        if is_valid:
            return
        if refresh is None:
            raise RunnerUnavailableError(_LOG_IN)
        try:
            renew(oidc, provider_of(oidc), refresh)
        except RunnerUnavailableError as error:
            raise RunnerUnavailableError(f"{_LOG_IN} ({error})") from error


_LOG_IN = (
    "the PanDA token is missing or has expired: run `scheduler login` in another terminal with this environment; "
    "the run goes on by itself"
)


def _trouble(message: str) -> RunnerError:
    """The exception for what went wrong: a refusal only when the service said that it will never do it."""
    if _CREDENTIALS.search(message):
        return RunnerUnavailableError(
            f"{message}. Is the credential valid, and the user's own? Renew the token (`scheduler login`) or the proxy "
            "certificate (X509_USER_PROXY) in another terminal; the run goes on by itself"
        )
    if _REFUSALS.search(message):
        return RunnerError(message)
    return RunnerUnavailableError(message)


def _number(answer: object, what: str) -> int:
    with suppress(ValueError):
        return int(str(answer))
    raise RunnerUnavailableError(f"iDDS answered something else than {what}: {_shorten(answer)}")


def _decoded(answer: object) -> object:
    """Some commands are answered with JSON inside JSON."""
    if isinstance(answer, str) and answer[:1] in {"{", "["}:
        with suppress(ValueError):
            return json.loads(answer)
    return answer


def _environment(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _cache_url() -> str:
    return os.environ.get("PANDACACHE_URL") or os.environ["PANDA_URL_SSL"]


def _shorten(text: object) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 300 else f"{flat[:300]}..."  # noqa: PLR2004 - a line of a log
