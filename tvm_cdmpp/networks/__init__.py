"""Networks: names and files, layouts, tasks, deployment, checked outputs."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.networks.checks import check_compiles, check_libraries
    from tvm_cdmpp.networks.deployment import (
        CountingBest,
        Deployed,
        check_export_path,
        deploy,
        load_best,
    )
    from tvm_cdmpp.networks.functions import (
        class_of,
        is_of_reducing_class,
        operator_of,
        own_operator_of,
        readable,
        shapes_of,
    )
    from tvm_cdmpp.networks.inputs import MOST_BATCH
    from tvm_cdmpp.networks.isolated import NetworkProcess
    from tvm_cdmpp.networks.layers import (
        KEPT_LAYERS,
        LAYERS,
        LIBRARY_LAYERS,
        PLAIN_LAYERS,
        Layer,
        network_of_layers,
    )
    from tvm_cdmpp.networks.lowering import LoweredNetwork, lower_network
    from tvm_cdmpp.networks.names import NETWORKS, check_network_is_there
    from tvm_cdmpp.networks.network import (
        CHANNELS_FIRST,
        CHANNELS_LAST,
        IRModule,
        Network,
        change_layout,
        extract_tasks,
        find_tasks,
        load_network,
        network_of_relay,
        tasks_of,
        to_search_form,
    )
    from tvm_cdmpp.networks.outputs import check_outputs, random_inputs
    from tvm_cdmpp.networks.untuned import OwnFunction, own_functions, plain_functions

__getattr__, __dir__ = offer(__name__)
