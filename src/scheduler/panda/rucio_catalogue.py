"""Datasets in Rucio, through the packages of the extra ``rucio``."""

from __future__ import annotations

import configparser
import hashlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scheduler.core.names import check_dataset_name, scope_of
from scheduler.errors import ConfigurationError, DatasetError
from scheduler.panda.datasets import DatasetFile

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60  # of one request; the client's own is ten minutes
_PAUSES_S = (1, 2, 4, 8, 15, 30, 60)  # between attempts to reach a server that has answered before: two minutes
_MARK_DIGITS = 24  # of the 32 of a GUID; the rest tells the files of a producer apart
_FETCHED = ("DONE", "ALREADY_DONE")

_CONFIGURE = "point RUCIO_CONFIG to your rucio.cfg, or RUCIO_HOME to the directory with etc/rucio.cfg"
_OTHER_SCOPE = (
    "the scope of its name is '{scope}'; begin the name with 'user.{account}.', or choose another account with "
    "RUCIO_ACCOUNT"
)
_NO_ANSWER = "the server does not answer; try again when it does, or see whether its address in your rucio.cfg is right"
_REMEDIES: Mapping[str, str] = {
    "DataIdentifierNotFound": "it is unknown there; see whether its name is right and its producer has run",
    "DataIdentifierAlreadyExists": "it exists already; take another name, for example with '#job_id' in it",
    "AccessDenied": f"account '{{account}}' is not permitted to; {_OTHER_SCOPE}",
    "ScopeAccessDenied": f"account '{{account}}' is not permitted to; {_OTHER_SCOPE}",
    "ScopeNotFound": f"there is no such scope; {_OTHER_SCOPE}",
    "InsufficientAccountLimit": (
        "account '{account}' has no quota left at '{rse}'; delete rules that you do not need, ask for more, or "
        "choose another storage element with config['rse']"
    ),
    "RSEOverQuota": "'{rse}' is full; choose another storage element with config['rse']",
    "InvalidRSEExpression": "'{rse}' is no storage element there; choose one with config['rse']",
    "RSENotFound": "'{rse}' is no storage element there; choose one with config['rse']",
    "RSEWriteBlocked": "'{rse}' does not take files now; wait, or choose another one with config['rse']",
    "InsufficientTargetRSEs": "'{rse}' does not take files now; wait, or choose another one with config['rse']",
    "CannotAuthenticate": "the credentials are refused; renew the proxy, token or password that your rucio.cfg names",
    "CannotAuthorize": "the credentials are refused; renew the proxy, token or password that your rucio.cfg names",
    "NoAuthInformation": f"there are no credentials; {_CONFIGURE}",
    "MissingClientParameter": f"its configuration is incomplete; {_CONFIGURE}",
    "ConfigNotFound": f"there is no configuration; {_CONFIGURE}",
    "ConfigLoadingError": f"there is no configuration; {_CONFIGURE}",
    "NoSectionError": f"its configuration is incomplete; {_CONFIGURE}",
    "NoOptionError": f"its configuration is incomplete; {_CONFIGURE}",
    "ServerConnectionException": _NO_ANSWER,
    "ConnectionError": _NO_ANSWER,
    "Timeout": _NO_ANSWER,
}
"""What is wrong and what to do, by the name of the client's exception."""


class RucioCatalogue:
    """Datasets in Rucio, as the account and on the server that the Rucio configuration of the user says.

    The scope of a dataset is the beginning of its name, ``user.alice`` of ``user.alice.x``. A new dataset gets a rule
    that keeps it on one storage element. A file gets the mark of its producer as part of its GUID, so that a job which
    runs again, also from another machine, finds what it added before. Thread-safe; connects with the first call.

    A server that stops answering is waited for, two minutes for each request; then the operation fails.

    What a producer withdraws leaves the dataset, and its number stays used: Rucio forgets no name.

    Args:
        rse: The storage element of new datasets; None for the only one where the account has quota.

    Raises:
        ConfigurationError: The Rucio client is not installed, or finds no configuration.
    """

    def __init__(self, *, rse: str | None = None) -> None:
        _import_rucio()
        self._rse = rse
        self._has_answered = False
        self._of_thread = threading.local()

    def check(self, *, writes: bool) -> None:
        """See whether the server answers, takes the credentials and, to write, has a place for files.

        Raises:
            ConfigurationError: With what is wrong and what to do.
        """
        try:
            with self._explained("Rucio cannot be used"):
                if writes:
                    self._client.get_rse(self._storage_element())
                else:
                    self._client.whoami()
        except DatasetError as error:
            raise ConfigurationError(str(error)) from error

    def exists(self, dataset: str) -> bool:
        """Whether there is a dataset of this name."""
        with self._about(dataset, "look up"):
            from rucio.common.exception import DataIdentifierNotFound

            try:
                self._client.get_did(scope_of(dataset), dataset)
            except DataIdentifierNotFound:
                return False
            return True

    def is_closed(self, dataset: str) -> bool:
        """Whether the dataset is complete."""
        return not self._look_up(dataset)["open"]

    def create(self, dataset: str) -> None:
        """Make an empty, open dataset, with a rule that keeps it on the storage element.

        Raises:
            DatasetError: It exists, the scope is somebody else's, or there is no quota.
            ConfigurationError: Rucio would refuse the name.
        """
        check_dataset_name(dataset)
        with self._about(dataset, "create"):
            rule = {
                "account": self._client.account,
                "copies": 1,
                "rse_expression": self._storage_element(),
                "grouping": "DATASET",
                "lifetime": None,
            }
            self._client.add_dataset(scope_of(dataset), dataset, rules=[rule])

    def add(self, dataset: str, files: Mapping[str, Path], *, producer: str = "") -> None:
        """Move files into an open dataset: all of them or none.

        Raises:
            DatasetError: The dataset is unknown or closed, or there is a file of this name.
        """
        for name in files:
            check_dataset_name(name)
        self._require_open(dataset)  # an upload into a closed dataset would leave a file that belongs to nothing
        taken = {each.name for each in self.files(dataset)}.intersection(files)
        if taken:
            raise DatasetError(f"dataset '{dataset}' has a file '{min(taken)}' already")
        for path in files.values():
            if not path.is_file():
                raise DatasetError(f"cannot move {path} into dataset '{dataset}': there is no such file")
        if files:
            self._upload(dataset, files, producer)
        for path in files.values():
            path.unlink()

    def add_numbered(self, dataset: str, files: Sequence[Path], *, name: str, producer: str) -> tuple[str, ...]:
        """Move files into an open dataset as ``<dataset>_<6 digits>.<name>``, numbered on from the last one.

        Numbers begin with 1 and are never used twice, also not after :meth:`withdraw`.

        Returns:
            Their names in the catalogue, in the order given.
        """
        first = self._last_number(dataset) + 1
        named = {f"{_prefix(dataset)}{number:06d}.{name}": file for number, file in enumerate(files, start=first)}
        self.add(dataset, named, producer=producer)
        return tuple(named)

    def close(self, dataset: str) -> None:
        """Declare a dataset complete.

        Raises:
            DatasetError: It is unknown or closed already.
        """
        self._require_open(dataset)
        with self._about(dataset, "close"):
            self._client.close(scope_of(dataset), dataset)

    def reopen(self, dataset: str) -> None:
        """Let a dataset take files again.

        Raises:
            DatasetError: It is unknown, or the policy of this Rucio does not permit it.
        """
        if self.is_closed(dataset):
            with self._about(dataset, "reopen"):
                self._client.set_status(scope_of(dataset), dataset, open=True)

    def withdraw(self, dataset: str, producer: str) -> tuple[str, ...]:
        """Take out what a producer added before, because it runs again.

        Returns:
            The names of the files that are gone.
        """
        self._require_open(dataset)
        mark = _mark(dataset, producer)
        gone = tuple(file.name for file in self.files(dataset) if file.producer == mark)
        self._detach(dataset, gone)
        return gone

    def files(self, dataset: str) -> tuple[DatasetFile, ...]:
        """The files of a dataset, by name, so numbered ones in the order of their numbers."""
        rows = sorted(self._rows(dataset), key=lambda row: str(row["name"]))
        return tuple(
            DatasetFile(row["name"], row["bytes"], row["adler32"], str(row["guid"] or "").lower()[:_MARK_DIGITS])
            for row in rows
        )

    def stage(self, dataset: str, directory: Path) -> list[str]:
        """Download the files of a closed dataset into a directory, with their checksums compared.

        A container, which nobody closes, is staged with the files that it has now.

        Raises:
            DatasetError: The dataset is unknown or not complete, a file is missing or was changed, or the directory has
                a file of this name.
        """
        known = self._look_up(dataset)
        if known["open"] and known["type"] != "CONTAINER":
            raise DatasetError(
                f"dataset '{dataset}' is not complete: its producer has not finished, or one of several failed"
            )
        scopes = {str(row["name"]): str(row["scope"]) for row in self._rows(dataset)}
        for name in scopes:
            if "/" in name:
                raise DatasetError(f"cannot stage '{name}' of dataset '{dataset}': a '/' in a file's name means a path")
            if (directory / name).exists():
                raise DatasetError(f"cannot stage dataset '{dataset}': {directory} has a file '{name}' already")
        if scopes:
            self._download(dataset, [f"{scope}:{name}" for name, scope in scopes.items()], directory)
        return sorted(scopes)

    def digests(self, dataset: str) -> None:
        """None: the one checksum that every file has is an Adler-32."""

    # ------------------------------------------------------------------------------------------------- the client

    @property
    def _client(self) -> Any:  # noqa: ANN401 - the package has no types that hold when it is not installed
        """The client of this thread; it is made with the first call, because that asks the server."""
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = _connect(is_patient=self._has_answered)
            self._has_answered = True
        return self._of_thread.client

    def _storage_element(self) -> str:
        if self._rse is None:
            account = self._client.account
            places = sorted(rse for rse, limit in self._client.get_local_account_limits(account).items() if limit != 0)
            if len(places) != 1:
                where = ", ".join(places) or "no storage element"
                raise DatasetError(
                    f"account '{account}' has quota at {where}: say where datasets shall go, with config['rse']"
                )
            (self._rse,) = places
        return self._rse

    def _look_up(self, dataset: str) -> Mapping[str, Any]:
        with self._about(dataset, "look up"):
            known: Mapping[str, Any] = self._client.get_did(scope_of(dataset), dataset)
            return known

    def _require_open(self, dataset: str) -> None:
        if self.is_closed(dataset):
            raise DatasetError(f"dataset '{dataset}' is closed: it is complete and takes no more files")

    def _rows(self, dataset: str) -> list[Mapping[str, Any]]:
        with self._about(dataset, "list"):
            return list(self._client.list_files(scope_of(dataset), dataset))

    def _last_number(self, dataset: str) -> int:
        """The highest number that a file was ever given, withdrawn ones and those of broken uploads included."""
        prefix = _prefix(dataset)
        numbered = re.compile(rf"{re.escape(prefix)}(\d{{6}})\.")
        with self._about(dataset, "list the files of"):
            names = list(self._client.list_dids(scope_of(dataset), [{"name": f"{prefix}*"}], did_type="file"))
        return max((int(match[1]) for name in names if (match := numbered.match(name))), default=0)

    def _upload(self, dataset: str, files: Mapping[str, Path], producer: str) -> None:
        from rucio.client.uploadclient import UploadClient

        quiet, traces = _Quiet(), list[Any]()
        scope = scope_of(dataset)
        try:
            with self._about(dataset, "upload into", reasons=lambda: [*quiet.complaints, *_reasons(traces)]):
                items = [
                    {
                        "path": str(path),
                        "rse": self._storage_element(),
                        "did_scope": scope,
                        "did_name": name,
                        "dataset_scope": scope,
                        "dataset_name": dataset,
                        "guid": _guid(dataset, producer, name),
                        "register_after_upload": True,  # plain users may not change the state of a replica later
                    }
                    for name, path in files.items()
                ]
                UploadClient(_client=self._client, logger=quiet).upload(items, traces_copy_out=traces)
        except DatasetError:
            self._take_back(dataset, files)
            raise

    def _take_back(self, dataset: str, files: Mapping[str, Path]) -> None:
        """Undo what there is of an upload that failed. If Rucio is gone by now, a retry withdraws it."""
        try:
            self._detach(dataset, [file.name for file in self.files(dataset) if file.name in files])
        except DatasetError as error:
            logger.warning("a part of an upload that failed may still be in dataset '%s': %s", dataset, error)

    def _detach(self, dataset: str, names: Sequence[str]) -> None:
        if names:
            scope = scope_of(dataset)
            with self._about(dataset, "take files out of"):
                self._client.detach_dids(scope, dataset, [{"scope": scope, "name": name} for name in names])

    def _download(self, dataset: str, identifiers: Sequence[str], directory: Path) -> None:
        from rucio.client.downloadclient import DownloadClient

        traces = list[Any]()
        items = [{"did": each, "base_dir": str(directory), "no_subdir": True} for each in identifiers]
        with self._about(dataset, "stage", reasons=lambda: _reasons(traces)):
            DownloadClient(client=self._client, logger=_Quiet()).download_dids(items, traces_copy_out=traces)

    # ------------------------------------------------------------------------------------------------------ errors

    @contextmanager
    def _about(self, dataset: str, action: str, *, reasons: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
        with self._explained(f"cannot {action} dataset '{dataset}' in Rucio", dataset=dataset, reasons=reasons):
            yield

    @contextmanager
    def _explained(
        self, what: str, *, dataset: str = "", reasons: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[None]:
        """Let everything that the Rucio client raises come out as an error with a remedy."""
        try:
            yield
        except DatasetError:
            raise
        except Exception as error:  # the client runs plug-ins for each kind of storage, which may raise anything
            logger.debug("%s", what, exc_info=True)
            told = "; ".join(reasons()) or " ".join(str(error).split()) or type(error).__name__
            remedy = self._remedy(error, dataset)
            raise DatasetError(f"{what}: {remedy} ({told})" if remedy else f"{what}: {told}") from error

    def _remedy(self, error: Exception, dataset: str) -> str:
        client = getattr(self._of_thread, "client", None)
        names = {
            "account": "?" if client is None else client.account,
            "scope": scope_of(dataset),
            "rse": self._rse or "any storage element",
        }
        known = (kind.__name__ for kind in type(error).__mro__)
        return next((_REMEDIES[name].format(**names) for name in known if name in _REMEDIES), "")


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Takes what the Rucio client logs: nothing of it is louder than DEBUG, and complaints are kept for our errors."""

    def __init__(self) -> None:
        super().__init__(logger, {})
        self.complaints: list[str] = []

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - as in the base
        """Log at DEBUG, and keep what is an error or, as a failed attachment, belongs to one."""
        if level >= logging.ERROR or str(msg).startswith("Attaching to dataset"):
            self.complaints.append(" ".join(str(msg).split()))
        super().log(logging.DEBUG, msg, *args, **kwargs)

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """The message as it is."""
        return msg, kwargs


def _import_rucio() -> None:
    """Import the client, which reads its configuration meanwhile."""
    try:
        from rucio.common.exception import RucioException
    except ImportError as error:
        raise ConfigurationError(
            f"the Rucio client cannot be imported ({error}); install it: pip install 'aid2e-scheduler[rucio]'"
        ) from error
    try:
        import rucio.client  # noqa: F401
    except (RucioException, configparser.Error) as error:
        told = " ".join(str(error).split())
        raise ConfigurationError(f"Rucio cannot be used: {_CONFIGURE} ({told})") from error


def _connect(*, is_patient: bool) -> Any:  # noqa: ANN401 - as above
    """A client.

    Args:
        is_patient: Whether to wait for the server already while connecting. Later it always does.
    """
    from rucio.client import Client
    from rucio.common.exception import ServerConnectionException

    class PatientClient(Client):  # type: ignore[misc]  # the base has no type when it is not installed
        """Repeats a request when the server does not answer. All requests of the client go through this method."""

        def __init__(self) -> None:
            self.pauses_s = _PAUSES_S if is_patient else ()
            super().__init__(timeout=_TIMEOUT_S, logger=_Quiet())
            self.pauses_s = _PAUSES_S

        def _send_request(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - as in the base
            for pause_s in self.pauses_s:
                try:
                    return super()._send_request(*arguments, **more)
                except (OSError, ServerConnectionException):  # the errors of `requests` are OSErrors
                    logger.warning("Rucio does not answer; asking again in %s s", pause_s)
                    time.sleep(pause_s)
            return super()._send_request(*arguments, **more)

    program = sys.argv[0]
    try:
        return PatientClient()
    finally:
        sys.argv[0] = program  # the client shortens it to its last part


def _reasons(traces: Sequence[Mapping[str, object]]) -> list[str]:
    """Why files were not transferred, from the reports that the client makes about each."""
    failed = [
        trace
        for trace in traces
        if trace.get("stateReason") and getattr(trace.get("clientState"), "value", None) not in _FETCHED
    ]
    return [" ".join(f"{trace.get('filename', '')} {trace['stateReason']}".split()) for trace in failed]


def _prefix(dataset: str) -> str:
    return f"{dataset.replace('/', '_')}_"


def _mark(dataset: str, producer: str) -> str:
    return hashlib.sha256(f"{dataset}\0{producer}".encode()).hexdigest()[:_MARK_DIGITS]


def _guid(dataset: str, producer: str, name: str) -> str:
    """A GUID, 32 hexadecimal digits, that begins with the mark of the producer."""
    return _mark(dataset, producer) + hashlib.sha256(name.encode()).hexdigest()[: 32 - _MARK_DIGITS]
