"""The worker entry module of recommendations: `faust -A topologies.recommendations_app worker -l info`."""

from topologies.app import app_from_environment
from topologies.recommendations import recommendations_topology

app = app_from_environment(recommendations_topology)
