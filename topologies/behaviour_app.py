"""The worker entry module of the behaviour topology: `faust -A topologies.behaviour_app worker -l info`."""

from topologies.app import app_from_environment
from topologies.behaviour import behaviour_topology

app = app_from_environment(behaviour_topology)
