"""What waking threads takes, measured for real."""

from typing import Any

from tests.tiny_tasks import TARGET
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.waking import wake_timer


def test_threads_take_longer_than_none_and_no_millisecond() -> None:
    options = MeasureOptions(repeat=2)
    with MeasureSession():
        measure = wake_timer(options.builder(), options.runner(on_cpu=False), TARGET, cores=2)
        found_s = measure()
    assert found_s is not None
    assert 1e-7 < found_s < 1e-3


def test_what_does_not_run_tells_nothing() -> None:
    options: Any = MeasureOptions(build_timeout_s=0, repeat=2)
    with MeasureSession():
        measure = wake_timer(options.builder(), options.runner(on_cpu=False), TARGET, cores=2)
        assert measure() is None
