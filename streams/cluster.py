"""Where a Kafka cluster is and how to be let in, as one value for clients of either library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.errors import MillraceError

AIOKAFKA_NAMES: Final = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
}
SSL_NAMES: Final = {
    "ssl.ca.location": "cafile",
    "ssl.certificate.location": "certfile",
    "ssl.key.location": "keyfile",
    "ssl.key.password": "password",
}
PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True)
class Cluster:
    """A Kafka cluster's bootstrap addresses, ``host:port,host:port``, and its security settings.

    ``security`` uses librdkafka's names (``security.protocol``, ``sasl.*``, ``ssl.*.location``). It is left
    out of the repr, for it may hold a password. A name that one of the client libraries would not honour
    is refused, so that no connection is quietly less secure than the other.

    >>> Cluster("localhost:9092").librdkafka(**{"group.id": "audit"})
    {'bootstrap.servers': 'localhost:9092', 'group.id': 'audit'}
    """

    bootstrap: str
    security: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        """Raise MillraceError for an address without a port or a security setting not known here."""
        for address in self.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdecimal():
                raise MillraceError(f"bootstrap address {address!r} is not host:port; give it as localhost:9092")
        unknown = sorted(set(self.security) - set(AIOKAFKA_NAMES) - set(SSL_NAMES))
        if unknown:
            known = ", ".join([*AIOKAFKA_NAMES, *SSL_NAMES])
            raise MillraceError(f"security setting {unknown[0]!r} is not supported; known are {known}")
        _one_of("security.protocol", self.protocol, PROTOCOLS)
        if "SASL" in self.protocol:
            _one_of("sasl.mechanism", self.security.get("sasl.mechanism", "missing"), MECHANISMS)

    @property
    def protocol(self) -> str:
        """The security protocol; PLAINTEXT unless set."""
        return self.security.get("security.protocol", "PLAINTEXT")

    def librdkafka(self, **extra: Any) -> dict[str, Any]:
        """Return a confluent-kafka client's configuration; ``extra`` has librdkafka's names, with dots."""
        return {"bootstrap.servers": self.bootstrap, **self.security, **extra}

    def aiokafka(self) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client; certificates are read from disk here."""
        arguments: dict[str, Any] = {
            AIOKAFKA_NAMES[name]: value for name, value in self.security.items() if name in AIOKAFKA_NAMES
        }
        if self.protocol in ("SSL", "SASL_SSL"):
            from aiokafka.helpers import create_ssl_context

            files = {SSL_NAMES[name]: value for name, value in self.security.items() if name in SSL_NAMES}
            arguments["ssl_context"] = create_ssl_context(**files)
        return {"bootstrap_servers": self.bootstrap, **arguments}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise MillraceError(f"{name} {value!r} is not supported; use one of {', '.join(allowed)}")
