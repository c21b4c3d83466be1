"""Networks: names and files, layouts, tasks, deployment, checked outputs."""

from tvm_cdmpp.networks.checks import check_compiles, check_libraries
from tvm_cdmpp.networks.deploy import Deployed, deploy
from tvm_cdmpp.networks.named import NETWORKS
from tvm_cdmpp.networks.network import Network, extract_tasks, load_network, to_search_form
from tvm_cdmpp.networks.outputs import check_outputs, random_inputs

__all__ = [
    "NETWORKS",
    "Deployed",
    "Network",
    "check_compiles",
    "check_libraries",
    "check_outputs",
    "deploy",
    "extract_tasks",
    "load_network",
    "random_inputs",
    "to_search_form",
]
