"""ActiveMQ, as Debian ships it: one STOMP connector, nothing kept on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.live.services import Service, accepts

_HOME = Path("/usr/share/activemq")
_DESTINATION = "/topic/doma.idds"

_CONFIGURATION = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="grid" useJmx="false" persistent="false"
          useShutdownHook="true" advisorySupport="false">
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp+nio://127.0.0.1:{port}"/>
    </transportConnectors>
  </broker>
</beans>
"""


def why_no_broker() -> str | None:
    """What is missing for a broker on this machine; None when nothing is."""
    if shutil.which("java") is None:
        return "java is not installed (Debian: default-jre-headless)"
    if not (_HOME / "bin" / "activemq.jar").exists():
        return "ActiveMQ is not installed (Debian: activemq)"
    return None


@dataclass(frozen=True)
class BrokerAddress:
    """What a client is told about the broker.

    Attributes:
        port: Where it listens on this machine.
    """

    port: int
    username: str = "user"
    password: str = "secret"  # noqa: S105  # of a broker that lives as long as a test
    destination: str = _DESTINATION

    def settings(self) -> dict[str, str]:
        """As the server's section ``asyncresult`` wants it."""
        return {
            "broker_type": "activemq",
            "brokers": f"127.0.0.1:{self.port}",
            "broker_destination": self.destination,
            "broker_timeout": "60",
            "broker_username": self.username,
            "broker_password": self.password,
        }


def broker_service(directory: Path, port: int) -> Service:
    """The broker as a service."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "activemq.xml"
    configuration.write_text(_CONFIGURATION.format(port=port))
    locations = {"home": _HOME, "base": directory, "conf": directory, "data": directory}
    return Service(
        "broker",
        [
            "java",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            *(f"-Dactivemq.{name}={path}" for name, path in locations.items()),
            "-jar",
            _HOME / "bin" / "activemq.jar",
            "start",
            f"xbean:file:{configuration}",
        ],
        directory,
        lambda: accepts(port),
    )
