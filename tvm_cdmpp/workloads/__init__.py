"""What a workload key means: named functions, common operators, hashes, derivation."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.workloads.derive import DerivedWorkloads
    from tvm_cdmpp.workloads.export import write_workloads
    from tvm_cdmpp.workloads.inspector import TvmInspector
    from tvm_cdmpp.workloads.samples import sample_tasks

__getattr__, __dir__ = offer(__name__)
