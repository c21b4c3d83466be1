"""CDMPP and the baselines inside TVM's auto-scheduler."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.search.ahead import AheadSearch, first_candidates
    from tvm_cdmpp.search.baselines import check_cost_model, check_search, num_threads
    from tvm_cdmpp.search.budget import heaviest_tasks
    from tvm_cdmpp.search.comparison import (
        CompareSettings,
        SearchComparison,
        SearchResult,
        TurnReport,
        check_covers,
    )
    from tvm_cdmpp.search.contest import run_contest
    from tvm_cdmpp.search.cost_model import CDMPPModel
    from tvm_cdmpp.search.explanation import (
        Explanation,
        Measured,
        explain_program,
        roofline_basis,
        task_roofline,
        why_below_roofline,
    )
    from tvm_cdmpp.search.guard import Guard, GuardConfig, Overruled
    from tvm_cdmpp.search.measured_log import MeasuredLog, MeasuredTask, read_measured_log
    from tvm_cdmpp.search.provenance import describe_machine, find_commit
    from tvm_cdmpp.search.reports import SEARCHES, RoundReport, TimeSplit, TuneSettings
    from tvm_cdmpp.search.review import SearchReview, TaskReview, review_search
    from tvm_cdmpp.search.selftest import run_selftest
    from tvm_cdmpp.search.tuner import NetworkTuner

__getattr__, __dir__ = offer(__name__)
