"""The channel on which jobs publish their results: one connection for each broker, however many jobs there are."""

from __future__ import annotations

import importlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from scheduler.panda.grid_replies import Result, result_of
from scheduler.panda.idds import Broker

logger = logging.getLogger(__name__)

_HEARTBEAT_MS = 30_000
_CONNECT_TIMEOUT_S = 5.0
_PAUSE_S = 4.0
"""Between two tries to connect. Short: what is published between the return of a broker and ours may be lost."""


class ResultChannel:
    """Listens to the results of requests.

    Not thread-safe, but for the callback, which is called in threads of its own.

    Args:
        broker: Where to listen.
        on_result: Called with every result as it is published; also with one that comes twice.
        on_disconnected: Called when a connection is lost.

    Attributes:
        broker: Where it listens.
    """

    def __init__(
        self, broker: Broker, on_result: Callable[[Result], None], on_disconnected: Callable[[], None]
    ) -> None:
        self.broker = broker
        self._on_result, self._on_disconnected = on_result, on_disconnected
        self._stomp: Any = importlib.import_module("stomp")
        self._requests: set[int] = set()
        self._connections: dict[tuple[str, int], Any] = {}
        self._try_at = 0.0
        self._is_in_trouble = False

    def listen(self, request_id: int) -> None:
        """Hear the results of a request from now on."""
        if request_id in self._requests:
            return
        self._requests.add(request_id)
        for connection in self._connections.values():
            self._subscribe(connection, request_id)

    def keep_alive(self, *, at_once: bool = False) -> bool:
        """Connect what is not connected, when it is time to try again, or at once.

        Returns:
            Whether something was connected anew: what was published before that has to be asked for.
        """
        if time.monotonic() < self._try_at and not at_once:
            return False
        down = [each for each in self._addresses() if each not in self._connections or not self._is_up(each)]
        connected = [address for address in down if self._connect(address)]
        self._is_in_trouble = len(connected) < len(down)
        self._try_at = time.monotonic() + (_PAUSE_S if self._is_in_trouble else 0.0)
        return bool(connected)

    @property
    def is_complete(self) -> bool:
        """Whether every broker is connected, so that no result can be missed."""
        return bool(self._connections) and all(self._is_up(each) for each in self._connections)

    def close(self) -> None:
        """Disconnect."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            _disconnect(connection)

    def _is_up(self, address: tuple[str, int]) -> bool:
        return bool(self._connections[address].is_connected())

    def _addresses(self) -> Iterator[tuple[str, int]]:
        """All hosts of all brokers; those whose names cannot be resolved just now are as they were."""
        for each in self.broker.addresses.split(","):
            host, _, port = each.strip().rpartition(":")
            try:
                found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
            except OSError as error:
                logger.debug("broker %s cannot be resolved: %s", host, error)
                continue
            yield from ((str(address[4][0]), int(port)) for address in found)

    def _connect(self, address: tuple[str, int]) -> bool:
        old = self._connections.pop(address, None)
        if old is not None:
            _disconnect(old)
        connection = self._stomp.Connection12(
            host_and_ports=[address],
            keepalive=True,
            heartbeats=(_HEARTBEAT_MS, _HEARTBEAT_MS),
            timeout=_CONNECT_TIMEOUT_S,
            reconnect_attempts_max=1,
        )
        connection.set_listener("results", _listener(self._stomp, self._on_result, self._on_disconnected))
        try:
            connection.connect(self.broker.username, self.broker.password, wait=True)
        except (self._stomp.exception.StompException, OSError) as error:
            log = logger.debug if self._is_in_trouble else logger.warning
            log("broker %s:%d does not answer (%s); results come over HTTP meanwhile", *address, type(error).__name__)
            _disconnect(connection)
            return False
        self._connections[address] = connection
        for request_id in self._requests:
            self._subscribe(connection, request_id)
        return True

    def _subscribe(self, connection: Any, request_id: int) -> None:  # noqa: ANN401 - an object of the package
        try:
            connection.subscribe(
                destination=self.broker.destination,
                id=f"scheduler-{request_id}",
                ack="auto",
                headers={"selector": f"request_id = '{request_id}'"},
            )
        except (self._stomp.exception.StompException, OSError) as error:
            logger.debug("the subscription was not taken (%s); it is repeated with the next connection", error)


def _listener(
    stomp: Any,  # noqa: ANN401 - the package
    on_result: Callable[[Result], None],
    on_disconnected: Callable[[], None],
) -> object:
    class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # the package is loaded when it is needed
        def on_message(self, frame: Any) -> None:  # noqa: ANN401
            result = result_of(frame.body)
            if result is not None:
                on_result(result)

        def on_error(self, frame: Any) -> None:  # noqa: ANN401
            logger.warning("the broker reports an error: %s", frame.headers.get("message", "no message"))

        def on_disconnected(self) -> None:
            on_disconnected()

    return Listener()


def _disconnect(connection: Any) -> None:  # noqa: ANN401 - an object of the package
    try:
        connection.disconnect()
    except Exception:  # a connection that is gone raises whatever it likes
        logger.debug("a connection to the broker could not be closed in good order", exc_info=True)
    connection.transport.stop()
