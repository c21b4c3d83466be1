"""The only door to TVM: find it, silence it, targets, logs of measured states."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.bridge.child import off_worker_cores
    from tvm_cdmpp.bridge.children import use_physical_cores
    from tvm_cdmpp.bridge.compiler import check_compiler
    from tvm_cdmpp.bridge.device_target import (
        is_this_machine,
        remark_on_calibration,
        target_for,
        why_unfit,
    )
    from tvm_cdmpp.bridge.handed import check_measurements, check_states, check_task, shapes_of
    from tvm_cdmpp.bridge.logs import LogReport, append_records, check_log, prepare_log
    from tvm_cdmpp.bridge.quiet import errors_of_threads, quiet_tvm, reason_of
    from tvm_cdmpp.bridge.records import no_record_of, read_records
    from tvm_cdmpp.bridge.results import (
        LONGEST_COST_S,
        build_timed_out,
        does_not_apply,
        failed,
        failed_to_run,
        latency_s,
        possible_latency_s,
        timed_out,
    )
    from tvm_cdmpp.bridge.rpc import start_server, start_tracker
    from tvm_cdmpp.bridge.runtime import describe_tvm, load_tvm
    from tvm_cdmpp.bridge.target import (
        check_target_runs_here,
        default_target,
        device_of,
        hardware_params,
        parse_target,
    )
    from tvm_cdmpp.bridge.tasks import (
        named_shapes,
        task_dag,
        task_key,
        task_name,
        task_names,
        with_dag,
    )

__getattr__, __dir__ = offer(__name__)
