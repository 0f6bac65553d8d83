"""Every setting, read once from the environment and the command line into one frozen value.

A field is set by the option of that name, else by `MILLRACE_` and its name in capitals
(`MILLRACE_GRACE_S=120`, `MILLRACE_NAME=w0`), else by its default. The cluster is `MILLRACE_BOOTSTRAP` with
`MILLRACE_SECURITY_PROTOCOL`, `MILLRACE_SASL_*` and `MILLRACE_SSL_*`; without a bootstrap address it is the
embedded broker that runs.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, Self, get_args

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import MillraceError

PREFIX: Final = "MILLRACE_"
LOOPBACK: Final = "127.0.0.1"
DAY_S: Final = 86_400
# Twice as many of a customer's orders are kept in a window, and no more fit a record (agents.activity.MAX_PURCHASES).
MAX_ALERT_ORDERS: Final = 100
LEGAL_PREFIX: Final = re.compile(r"[a-zA-Z0-9._-]{0,60}")
LEGAL_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{8,1000}")  # what a header carries as it is (RFC 6750)
LEGAL_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
SECURITY: Final = {
    "MILLRACE_SECURITY_PROTOCOL": "security.protocol",
    "MILLRACE_SASL_MECHANISM": "sasl.mechanism",
    "MILLRACE_SASL_USERNAME": "sasl.username",
    "MILLRACE_SASL_PASSWORD": "sasl.password",
    "MILLRACE_SSL_CA": "ssl.ca.location",
    "MILLRACE_SSL_CERTIFICATE": "ssl.certificate.location",
    "MILLRACE_SSL_KEY": "ssl.key.location",
    "MILLRACE_SSL_KEY_PASSWORD": "ssl.key.password",
}


@dataclass(frozen=True)
class Settings:
    """What a worker, a view server or a command runs with. Raises MillraceError for values that cannot be.

    Times are in seconds. ``state_dir`` (`MILLRACE_STATE`) is shared by the workers of one host; ``name`` is a
    worker's own, which brings it back into its group at once after a crash (None: the first free one of the
    state directory); one that comes back within ``session_s`` keeps its partitions, one that stays away longer loses
    them to the others. ``flush_s`` is how often what was counted is made durable and shows (None: as the topology
    says). ``prefix`` goes before the names of groups and topics, so that several shops share a cluster.
    The behaviour and recommendations topologies: a session ends ``session_gap_s`` after its last event, a cart is
    abandoned ``cart_timeout_s`` after its last change, an alert is raised at more than ``alert_orders`` orders or more
    than ``alert_amount`` (minor units) of one user in ``alert_window_s``; what was seen together counts half after
    ``half_life_days`` (0: it counts for ever).
    A view server counts a closed window again from the log each ``audit_every_s`` (topologies.views.audit; 0: never).
    ``read_token`` and ``ops_token`` are what view servers ask for (topologies.views.guard); pages of ``cors_origin``
    may read them (None: of their own origin only). ``orders_token`` is what the order API asks for.
    """

    cluster: Cluster
    home: Path
    state_dir: Path
    name: str | None = None
    partitions: int = 4
    slice_s: int = 60
    grace_s: float = 60.0
    retention_s: float = 48 * 3600.0
    flush_s: float | None = None
    session_s: float = 10.0
    max_ahead_s: float = 600.0
    currency: str = "KRW"
    prefix: str = ""
    session_gap_s: int = 1800
    cart_timeout_s: int = 3600
    alert_window_s: int = 600
    alert_orders: int = 5
    alert_amount: int = 5_000_000
    half_life_days: float = 7.0
    views_port: int = 8090
    orders_port: int = 8080
    worker_port: int = 6066
    audit_every_s: float = 10.0
    read_token: str | None = field(default=None, repr=False)
    ops_token: str | None = field(default=None, repr=False)
    orders_token: str | None = field(default=None, repr=False)
    cors_origin: str | None = None

    def __post_init__(self) -> None:
        """Check every bound, so that nobody else has to."""
        _require(self.partitions >= 1, "partitions must be at least 1")
        _require(self.slice_s >= 1, "slice_s must be at least 1")
        _require(DAY_S % self.slice_s == 0, "slice_s must divide a day (86400), as 1, 60, 300 and 900 do")
        _require(self.grace_s >= 0, "grace_s must not be negative")
        _require(self.max_ahead_s >= 0, "max_ahead_s must not be negative")
        _require(self.flush_s is None or 0 < self.flush_s <= 10, "flush_s must be above 0 and at most 10")
        _require(self.session_s >= 1, "session_s must be at least 1")
        _require(self.retention_s >= self.slice_s + self.grace_s, "retention_s must cover slice_s and grace_s")
        _require(bool(self.currency) and "\x1f" not in self.currency, "currency must be a code like KRW")
        _require(bool(LEGAL_PREFIX.fullmatch(self.prefix)), "prefix must be letters, digits, '.', '_' and '-'")
        for name in ("session_gap_s", "cart_timeout_s", "alert_window_s"):
            length = getattr(self, name)
            _require(length >= 1 and length % self.slice_s == 0, f"{name} must be a multiple of slice_s")
        _require(self.alert_orders >= 1 and self.alert_amount >= 1, "alert_orders and alert_amount must be at least 1")
        most = MAX_ALERT_ORDERS
        _require(self.alert_orders <= most, f"alert_orders must be at most {most}; shorten alert_window_s instead")
        _require(self.audit_every_s >= 0, "audit_every_s must not be negative; 0 turns the audit off")
        _require(self.half_life_days >= 0, "half_life_days must not be negative")
        for token in filter(None, (self.read_token, self.ops_token, self.orders_token)):
            _require(bool(LEGAL_TOKEN.fullmatch(token)), "tokens must be 8 to 1,000 letters, digits and -._~+/=")
        _require(self.read_token is None or self.read_token != self.ops_token, "ops_token must not be the read_token")
        origin = self.cors_origin
        _require(
            origin is None or bool(LEGAL_ORIGIN.fullmatch(origin)), "cors_origin must be like https://shop.example"
        )
        for port in (self.views_port, self.orders_port, self.worker_port):
            _require(0 <= port < 65536, f"port {port} is not one")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the settings; ``overrides`` are fields, or ``bootstrap``, and count unless they are None.

        Raises MillraceError for a value that cannot be read, and when there is neither a bootstrap address
        nor an embedded broker that runs.
        """
        environment = os.environ if environment is None else environment
        given = {name: value for name, value in overrides.items() if value is not None}
        home = Path(given.pop("home", None) or home_directory(environment))
        bootstrap = given.pop("bootstrap", None)
        if "cluster" not in given:
            given["cluster"] = find_cluster(environment, home, bootstrap)
        state_dir = Path(given.pop("state_dir", None) or environment.get("MILLRACE_STATE") or home / "state")
        return cls(home=home, state_dir=state_dir, **{**_scalars(environment), **given})

    def variables(self) -> dict[str, str]:
        """The environment in which a child process finds the same cluster, places and names.

        What else was set in the environment it inherits.
        """
        return {
            "MILLRACE_BOOTSTRAP": self.cluster.bootstrap,
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_STATE": str(self.state_dir),
            "MILLRACE_PREFIX": self.prefix,
        }


def home_directory(environment: Mapping[str, str]) -> Path:
    """Return where the broker and, by default, all state is kept: `MILLRACE_HOME` or `~/.millrace`."""
    return Path(environment.get("MILLRACE_HOME") or Path.home() / ".millrace")


def find_cluster(environment: Mapping[str, str], home: Path, bootstrap: str | None = None) -> Cluster:
    """Return the cluster that was named, else the embedded broker of ``home``, if it runs."""
    bootstrap = bootstrap or environment.get("MILLRACE_BOOTSTRAP")
    if bootstrap:
        security = {name: environment.get(variable, "") for variable, name in SECURITY.items()}
        return Cluster(bootstrap, {name: value for name, value in security.items() if value})
    embedded = Broker(home).cluster()
    if embedded is None:
        raise MillraceError(
            "no Kafka broker runs here: start one with `millrace broker up`, or name yours with --bootstrap "
            "or MILLRACE_BOOTSTRAP; see `millrace doctor`"
        )
    return embedded


def _scalars(environment: Mapping[str, str]) -> dict[str, Any]:
    read = {}
    for declared in fields(Settings):
        text = environment.get(PREFIX + declared.name.upper())
        if text and declared.name not in ("cluster", "home", "state_dir"):
            read[declared.name] = _read(declared.name, text, _kind(declared.type))
    return read


def _kind(annotation: Any) -> type:
    """The type of a setting that may be None as well."""
    kinds: list[type] = [kind for kind in get_args(annotation) or [annotation] if kind is not NoneType]
    return kinds[0]


def _read(name: str, text: str, kind: type) -> Any:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError as error:
        number = "a whole number" if kind is int else "a number"
        raise MillraceError(f"{PREFIX}{name.upper()} is {text!r}; set it to {number}") from error


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise MillraceError(f"setting {otherwise}")
