"""Building and timing programs: sessions, outcomes, calibration, sampling, collecting."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.measure.bench import BenchConfig, LiveBench
    from tvm_cdmpp.measure.calibration import Calibration, CalibrationConfig, matmul_timer
    from tvm_cdmpp.measure.collect import CollectConfig, Collector, distinct_tasks
    from tvm_cdmpp.measure.doubtful import SecondRuns
    from tvm_cdmpp.measure.first_minute import SMALL_PROGRAMS, calibrate_device
    from tvm_cdmpp.measure.gain import Gain, Timing, measure_gain, measure_latency
    from tvm_cdmpp.measure.outcomes import (
        HOPELESS,
        Failures,
        check_disk,
        hopeless_error,
        record_batch,
    )
    from tvm_cdmpp.measure.own_records import own_records_file
    from tvm_cdmpp.measure.pace import Pace, at_full_pace
    from tvm_cdmpp.measure.reports import BatchReport
    from tvm_cdmpp.measure.session import (
        MeasureOptions,
        MeasureSession,
        RemoteDevices,
        SearchStopped,
    )
    from tvm_cdmpp.measure.small_programs import FirstMinuteConfig
    from tvm_cdmpp.measure.waking import wait_until_idle
    from tvm_cdmpp.measure.warm import WarmEstimate, WarmEstimator, WarmLevels

__getattr__, __dir__ = offer(__name__)
