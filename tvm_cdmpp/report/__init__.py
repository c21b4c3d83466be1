"""Plots and pages from results; nothing here prints."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.report.comparison_plot import plot_comparison
    from tvm_cdmpp.report.prediction_plot import plot_devices, plot_timeline
    from tvm_cdmpp.report.search_page import search_page, write_search_page
    from tvm_cdmpp.report.store_plot import plot_overview
    from tvm_cdmpp.report.units import counted, latency, latency_unit, ranges

__getattr__, __dir__ = offer(__name__)
