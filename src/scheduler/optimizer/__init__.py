"""The optimizer: the port the engine knows, and the only place that imports Ax.

:func:`adapt` makes an optimizer of an Ax client and :func:`restore` of a snapshot. Importing this package loads nothing
of Ax: an instance of a client proves that its module is loaded already.
"""

from __future__ import annotations

import sys
from typing import Any

from scheduler.core.results import Measurement
from scheduler.errors import ConfigurationError
from scheduler.optimizer.ax_api_client import ApiClientService
from scheduler.optimizer.ax_client import AxClientService
from scheduler.optimizer.ax_optimizer import AxOptimizer
from scheduler.optimizer.ax_service import AxService
from scheduler.optimizer.port import Candidate, Optimizer, Preparation, Proposal, Standing
from scheduler.optimizer.snapshots import read_snapshot

_SERVICES: tuple[type[AxService], ...] = (AxClientService, ApiClientService)
_WHAT_IS_NEEDED = (
    "pass an ax.api.client.Client after configure_experiment() and configure_optimization(), "
    "or an ax.service.ax_client.AxClient after create_experiment()"
)


def adapt(client: object) -> AxOptimizer:
    """Make an optimizer of an Ax client. The client stays usable and sees everything that happens.

    Args:
        client: An ``ax.api.client.Client`` or, where Ax still has it, an ``ax.service.ax_client.AxClient``.

    Raises:
        ConfigurationError: It is something else, or its experiment or objectives are not configured yet.
    """
    for service in _SERVICES:
        module = sys.modules.get(service.client_module)
        client_class = getattr(module, service.client_name, None)
        if client_class is not None and isinstance(client, client_class):
            return _adapt(service(client))
    found = f"the class {client.__qualname__}" if isinstance(client, type) else f"a {type(client).__qualname__}"
    raise ConfigurationError(f"the optimizer must be an Ax client, not {found}: {_WHAT_IS_NEEDED}")


def restore(snapshot: str, *, into: object = None) -> AxOptimizer:
    """Make the optimizer that :meth:`AxOptimizer.snapshot` took a picture of, pending trials included.

    The restored client is a plain ``Client`` or ``AxClient``: settings for storing experiments in a database, and the
    methods of a subclass, are not part of a snapshot.

    Args:
        snapshot: The text.
        into: A client of the same kind, which takes on the restored state, so that a program that holds it sees it.

    Raises:
        ConfigurationError: The text is no snapshot, this version of Ax has no such client, or ``into`` is of another
            kind.
    """
    content = read_snapshot(snapshot)
    for service in _SERVICES:
        if service.client_name == content["client"]:
            restored = _adapt(_load(service, content))
            return restored if into is None else _move(restored, into)
    raise ConfigurationError(f"the snapshot is of an unknown client {content['client']!r}")


def _move(restored: AxOptimizer, client: object) -> AxOptimizer:
    if not isinstance(client, type(restored.client)):
        raise ConfigurationError(
            f"the run was made with a {type(restored.client).__name__}, the program has a {type(client).__name__}"
        )
    vars(client).update(vars(restored.client))
    return adapt(client)


def _load(service: type[AxService], content: dict[str, Any]) -> AxService:
    try:
        return service.load(content)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"Ax cannot read this snapshot: {type(error).__name__}: {error}; go on with the version of Ax that wrote it"
        ) from error


def _adapt(service: AxService) -> AxOptimizer:
    experiment = service.experiment
    if experiment is None:
        raise ConfigurationError(f"the {service.client_name} has no experiment yet: {_WHAT_IS_NEEDED}")
    config = experiment.optimization_config
    if config is None:
        raise ConfigurationError(f"the {service.client_name} has no objectives yet: {_WHAT_IS_NEEDED}")
    return AxOptimizer(service, experiment, config)


__all__ = [
    "AxOptimizer",
    "Candidate",
    "Measurement",
    "Optimizer",
    "Preparation",
    "Proposal",
    "Standing",
    "adapt",
    "restore",
]
