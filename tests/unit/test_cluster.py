import pytest

from streams.cluster import Cluster
from streams.errors import MillraceError

SASL = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "SCRAM-SHA-256",
    "sasl.username": "shop",
    "sasl.password": "secret",
}


def test_both_clients_are_told_the_same() -> None:
    cluster = Cluster("a:1,b:2", SASL)
    assert cluster.librdkafka() == {"bootstrap.servers": "a:1,b:2", **SASL}
    assert cluster.aiokafka() == {
        "bootstrap_servers": "a:1,b:2",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "shop",
        "sasl_plain_password": "secret",
    }


def test_tls_reaches_aiokafka_as_a_context() -> None:
    assert "ssl_context" in Cluster("a:1", {"security.protocol": "SSL"}).aiokafka()


def test_what_a_client_asks_for_besides_is_added() -> None:
    assert Cluster("a:1").librdkafka(**{"group.id": "g"})["group.id"] == "g"


def test_a_password_is_never_printed() -> None:
    assert "secret" not in repr(Cluster("a:1", SASL))


@pytest.mark.parametrize("bootstrap", ["", "localhost", "localhost:", ":9092", "a:1,b", "a:http"])
def test_an_address_without_host_or_port_is_refused(bootstrap: str) -> None:
    with pytest.raises(MillraceError, match="not host:port"):
        Cluster(bootstrap)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ssl.crl.location", "x"), ("security.protocol", "TLS"), ("sasl.mechanism", "GSSAPI")],
)
def test_security_that_one_client_would_ignore_is_refused(name: str, value: str) -> None:
    with pytest.raises(MillraceError, match=r"not supported"):
        Cluster("a:1", {**SASL, name: value})
