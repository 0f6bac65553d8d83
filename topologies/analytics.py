"""The worker entry module of the sales topology: `faust -A topologies.analytics worker -l info`."""

from topologies.app import app_from_environment
from topologies.sales import sales_topology

app = app_from_environment(sales_topology)
