"""The worker entry module of the sales topology: `faust -A topologies.analytics worker -l info`."""

from streams.errors import MillraceError
from topologies.app import build_app
from topologies.sales import sales_topology
from topologies.settings import Settings

try:
    settings = Settings.from_environment()
except MillraceError as error:
    raise SystemExit(f"error: {error}") from None
topology = sales_topology(settings)
app = build_app(topology, settings)
