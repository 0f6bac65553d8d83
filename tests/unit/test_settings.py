from pathlib import Path

import pytest

from streams.errors import MillraceError
from topologies.app import build_app
from topologies.behaviour import behaviour_topology
from topologies.recommendations import recommendations_topology
from topologies.sales import sales_topology
from topologies.settings import Settings

HERE = {"MILLRACE_BOOTSTRAP": "kafka:9092"}


def test_defaults_are_those_of_the_design() -> None:
    settings = Settings.from_environment({**HERE, "MILLRACE_HOME": "/h"})
    assert settings.cluster.bootstrap == "kafka:9092"
    assert (settings.home, settings.state_dir) == (Path("/h"), Path("/h/state"))
    assert (settings.partitions, settings.slice_s, settings.grace_s) == (4, 60, 60)
    assert (settings.retention_s, settings.flush_s, settings.max_ahead_s) == (172_800, None, 600)
    assert (settings.currency, settings.views_port, settings.worker_port) == ("KRW", 8090, 6066)


def test_topologies_say_how_often_they_flush_unless_the_settings_do() -> None:
    settings = Settings.from_environment(HERE)
    assert [make(settings).flush_s for make in (sales_topology, behaviour_topology, recommendations_topology)] == [
        0.2, 1.0, 1.0,
    ]  # fmt: skip
    for given, interval in (({}, 1.0), ({"MILLRACE_FLUSH_S": "0.5"}, 0.5)):
        told = Settings.from_environment({**HERE, **given})
        assert build_app(behaviour_topology(told), told).conf.broker_commit_interval == interval


def test_an_option_beats_the_environment_and_the_environment_the_default() -> None:
    environment = {**HERE, "MILLRACE_PARTITIONS": "2", "MILLRACE_GRACE_S": "5.5", "MILLRACE_NAME": "w0"}
    settings = Settings.from_environment(environment, partitions=8, bootstrap="other:1", grace_s=None)
    assert (settings.partitions, settings.grace_s, settings.name) == (8, 5.5, "w0")
    assert settings.cluster.bootstrap == "other:1"


def test_a_child_process_finds_the_same_cluster_places_and_names() -> None:
    given = {**HERE, "MILLRACE_HOME": "/h", "MILLRACE_STATE": "/elsewhere", "MILLRACE_PREFIX": "mine-"}
    settings = Settings.from_environment(given)
    assert settings.variables() == given
    assert Settings.from_environment(settings.variables()) == settings


def test_security_is_passed_through() -> None:
    environment = {
        **HERE,
        "MILLRACE_SECURITY_PROTOCOL": "SASL_SSL",
        "MILLRACE_SASL_MECHANISM": "PLAIN",
        "MILLRACE_SASL_USERNAME": "u",
        "MILLRACE_SASL_PASSWORD": "p",
        "MILLRACE_SSL_CA": "/ca.pem",
    }
    assert Settings.from_environment(environment).cluster.security == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
    }


def test_without_any_broker_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(MillraceError, match="millrace broker up"):
        Settings.from_environment({"MILLRACE_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLRACE_PARTITIONS", "four"),
        ("MILLRACE_PARTITIONS", "0"),
        ("MILLRACE_GRACE_S", "-1"),
        ("MILLRACE_FLUSH_S", "0"),
        ("MILLRACE_RETENTION_S", "60"),
        ("MILLRACE_VIEWS_PORT", "70000"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line(variable: str, value: str) -> None:
    with pytest.raises(MillraceError) as refused:
        Settings.from_environment({**HERE, variable: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("session_gap_s", 90, "session_gap_s must be a multiple of slice_s"),
        ("cart_timeout_s", 0, "cart_timeout_s must be a multiple of slice_s"),
        ("alert_window_s", 61, "alert_window_s must be a multiple of slice_s"),
        ("alert_orders", 0, "alert_orders and alert_amount must be at least 1"),
        ("alert_orders", 101, "alert_orders must be at most 100"),
        ("slice_s", 7, r"slice_s must divide a day \(86400\)"),
        ("slice_s", 604_800, r"slice_s must divide a day \(86400\)"),
        ("alert_amount", 0, "alert_orders and alert_amount must be at least 1"),
        ("half_life_days", -1, "half_life_days must not be negative"),
    ],
)
def test_an_impossible_setting_of_behaviour_is_refused_in_one_line(name: str, value: int, words: str) -> None:
    with pytest.raises(MillraceError, match=words):
        Settings.from_environment({"MILLRACE_BOOTSTRAP": "a:1", f"MILLRACE_{name.upper()}": str(value)})


@pytest.mark.parametrize("times", [(1, 1, 1), (1800, 3600, 30 * 86_400), (60, 30 * 86_400, 60), (86_400, 60, 172_800)])
def test_whatever_times_are_accepted_the_topologies_can_be_built(times: tuple[int, int, int]) -> None:
    names = ("session_gap_s", "cart_timeout_s", "alert_window_s")
    for slice_s in (1, 45, 86_400):
        rounded = {name: -(-time // slice_s) * slice_s for name, time in zip(names, times, strict=True)}
        settings = Settings.from_environment(HERE, slice_s=slice_s, retention_s=172_800, **rounded)
        for make in (sales_topology, behaviour_topology, recommendations_topology):
            assert make(settings).group.tables


def test_settings_of_behaviour_reach_their_tables_and_topics() -> None:
    environment = {"MILLRACE_BOOTSTRAP": "a:1", "MILLRACE_PREFIX": "mine-", "MILLRACE_PARTITIONS": "3"}
    times = {"MILLRACE_SESSION_GAP_S": "120", "MILLRACE_CART_TIMEOUT_S": "240", "MILLRACE_ALERT_WINDOW_S": "180"}
    read = Settings.from_environment({**environment, **times})
    behaviour, recommendations = behaviour_topology(read), recommendations_topology(read)
    widths = {table.name: table.slice_s for table in behaviour.group.tables}
    assert (widths["activity_by_user"], widths["cart_changes_by_user"], widths["orders_by_user"]) == (120, 240, 180)
    for topology in (behaviour, recommendations):
        assert all(topic.name.startswith("mine-") for topic in topology.topics())
        assert {source.topic.partitions for source in topology.group.sources} == {3}
    assert {rule.name: rule.due_ms for rule in behaviour.rules if rule.name != "velocity"} == {
        "sessions": 120_000,
        "abandoned-carts": 240_000,
    }
