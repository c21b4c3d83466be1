"""Whether weights have learned from the device that they are to be adapted to.

Their error on programs of it is then that of what they know, not of what they will be used for.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm_cdmpp.data import official_rules
from tvm_cdmpp.devices import DeviceSpec, find_device
from tvm_cdmpp.models import TrainedPredictor


def remark_on_seen(
    weights: TrainedPredictor, device: DeviceSpec, store_hash: str | None = None
) -> str | None:
    """Say that errors on a device's programs are not those of unseen ones; None where they are.

    Parameters
    ----------
    weights
        What is started from.
    device
        Where programs are measured.
    store_hash
        Content hash of the record store that has their latencies; None where they are measured
        anew.
    """
    if not _has_learned_from(weights, device, store_hash):
        return None
    splits = [name for name in official_rules() if _holds_out(name, device)]
    option = f" --split {splits[0]}`" if splits else "` on a store without its records"
    return (
        f"the weights that this starts from have learned from programs of {device.name}, and those "
        "that are kept back may be among these: the errors are not those on unseen programs. "
        f"Weights of a training that held the device out show those (`tvm-cdmpp train{option})"
    )


def _has_learned_from(
    weights: TrainedPredictor, device: DeviceSpec, store_hash: str | None
) -> bool:
    if weights.expert(device).network.knows(device):
        return True
    about: object = weights.about
    while isinstance(about, Mapping):
        if about.get("device") == device.name:  # `adapt` made them
            return True
        # Of a device with few programs, the training learned without knowing it from then on.
        is_of_store = store_hash is not None and about.get("data_hash") == store_hash
        if is_of_store and not _holds_out(about.get("split"), device):
            return True
        about = about.get("from")
    return False


def _holds_out(split: object, device: DeviceSpec) -> bool:
    rule = official_rules().get(split) if isinstance(split, str) else None
    return rule is not None and device.name in {find_device(name).name for name in rule.devices}
