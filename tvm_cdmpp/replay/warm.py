"""What functions take again and again by themselves, with all that they read in the caches."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm_cdmpp.devices import DeviceCalibration, DeviceSpec, Hardware
from tvm_cdmpp.extract import describe_programs
from tvm_cdmpp.measure import WarmEstimate
from tvm_cdmpp.models import combine_terms, leaf_terms_s
from tvm_cdmpp.networks import OwnFunction
from tvm_cdmpp.replay.inside import inside_network
from tvm_cdmpp.replay.physics import moved_bytes, plain_s


@dataclass(frozen=True, slots=True)
class WarmEstimates:
    """A `measure.WarmEstimator`."""

    device: DeviceSpec
    """A CPU; its calibration is left out of account."""
    hardware: Hardware
    """What functions were generated for."""

    def plain(self, function: OwnFunction, wake_s: float | None) -> WarmEstimate:
        """Estimate a function that no predictor knows; see `replay.physics`."""
        return WarmEstimate(*plain_s(function, self._known_by(wake_s)))

    def kept(self, function: OwnFunction, wake_s: float | None, alone_s: float) -> WarmEstimate:
        """Estimate a function that predictors know, and that took so long with empty caches."""
        device = self._known_by(wake_s)
        batch = describe_programs([function.leaves], self.hardware)
        base_s = combine_terms(leaf_terms_s(batch, device))
        found = inside_network(
            alone_s * base_s / base_s.sum(), batch, [function.leaves], device, moved_bytes(function)
        )
        work_s = float(found.work_s[0])
        return WarmEstimate(float(found.latency_s[0]) - work_s, work_s, float(found.gone[0]))

    def _known_by(self, wake_s: float | None) -> DeviceSpec:
        return replace(self.device, calibration=DeviceCalibration(levels=(), wake_s=wake_s))
