"""Measure records: read, checked, deduplicated, stored. Needs no TVM."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.data.folder import FEATURES, check_folder
    from tvm_cdmpp.data.importer import import_logs
    from tvm_cdmpp.data.inputs import check_device_name, find_inputs
    from tvm_cdmpp.data.lines import (
        BINS,
        COMMENT,
        NOT_JSON,
        UNKNOWN,
        UNREADABLE,
        LineError,
        LogRecord,
        are_well_formed,
        failure_name,
        packing_of,
        parse_line,
        read_lines,
    )
    from tvm_cdmpp.data.noise import Noise, noise_by
    from tvm_cdmpp.data.overview import LATENCY_EDGES_LOG10_S, count_leaves, describe_store
    from tvm_cdmpp.data.quality import Ints, Labels, make_labels, read_measurements
    from tvm_cdmpp.data.reports import ImportReport, InputReport
    from tvm_cdmpp.data.sidecars import add_workloads
    from tvm_cdmpp.data.splits import (
        check_split_name,
        choose_validation,
        official_rules,
        official_split,
    )
    from tvm_cdmpp.data.store import RecordStore
    from tvm_cdmpp.data.workload_book import (
        DagFacts,
        Workload,
        WorkloadBook,
        flat_key,
        is_hash,
        operator_class,
        workload_id,
    )

__getattr__, __dir__ = offer(__name__)
