"""From programs to compact ASTs."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.extract.agreement import Difference, differences, vector_differences
    from tvm_cdmpp.extract.dag import analyse, load_dag
    from tvm_cdmpp.extract.extractor import StepExtractor, records_of_steps
    from tvm_cdmpp.extract.handover import dump_records
    from tvm_cdmpp.extract.native import StageLoops, describe
    from tvm_cdmpp.extract.programs import describe_programs, leaves_by_name, leaves_if_readable
    from tvm_cdmpp.extract.stage import LayoutRewrite, TaskGraph
    from tvm_cdmpp.extract.tir import extract_exact, leaves_of

__getattr__, __dir__ = offer(__name__)
