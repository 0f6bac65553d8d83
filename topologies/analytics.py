"""The worker entry module of the sales topology: `faust -A topologies.analytics worker -l info`."""

from topologies.app import build_app
from topologies.sales import sales_topology
from topologies.settings import Settings

settings = Settings.from_environment()
topology = sales_topology(settings)
app = build_app(topology, settings)
