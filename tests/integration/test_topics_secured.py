"""The operator's commands on a cluster that asks who one is: with the settings as the environment gives them."""

from collections.abc import Iterator

import pytest
from operating import Operator, fresh

from streams.broker import Broker, state
from streams.broker.state import free_ports
from streams.cluster import Cluster

LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_shop="secret";'
ENVIRONMENT = {
    "MILLRACE_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "MILLRACE_SASL_MECHANISM": "PLAIN",
    "MILLRACE_SASL_USERNAME": "shop",
    "MILLRACE_SASL_PASSWORD": "secret",
}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a broker's second listener is, which wants a name and a password."""
    home = tmp_path_factory.mktemp("secured")
    plain, controller, secured = free_ports(3)
    listeners = f"PLAINTEXT://127.0.0.1:{plain},SECURED://127.0.0.1:{secured}"
    properties = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secured.plain.sasl.jaas.config": LOGIN,
    }

    kept = state.State(state.new_state(1).cluster_id, (state.Node(1, plain, controller),))
    state.save(home / "broker" / "state.json", kept)
    broker = Broker(home, 1, properties)
    try:
        broker.up()
        yield f"127.0.0.1:{secured}"
    finally:
        broker.down(wipe=True)


def test_all_of_them_work_for_one_who_is_let_in(
    secured: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    operator, topic, group = Operator(Cluster(secured), capsys), fresh("locked"), fresh("let-in")
    operator.run("topics", "create", topic, "--partitions", "2")
    operator.run("produce", topic, "user-1:1", "user-2:2")
    assert len(operator.records(topic, "--group", group, "--from-beginning", "--to-end")) == 2
    assert operator.json("groups", "describe", group)["groups"][0]["lag"] == 0
    assert operator.json("perf", "produce", topic, "--records", "100")["records"] == 100
    assert operator.json("perf", "consume", topic, "--records", "102")["records"] == 102
    operator.run("groups", "reset", group, "--to-earliest", "--execute")
    operator.run("topics", "delete", topic, "--yes")
    monkeypatch.setenv("MILLRACE_SASL_PASSWORD", "guessed")
    assert secured in operator.refuses("topics", "list")
