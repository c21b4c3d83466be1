"""What a user may not expect of the figures of a forecast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tvm_cdmpp.bridge import remark_on_calibration
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import CostPredictor, TrainedPredictor
from tvm_cdmpp.networks import LoweredNetwork
from tvm_cdmpp.replay.pricing import Price


def remarks_on(
    prices: Mapping[str, Price],
    counts: Counter[str],
    lowered: LoweredNetwork,
    device: DeviceSpec,
    predictor: CostPredictor,
) -> list[str]:
    """Say where the prices of a network's functions come from, and what may mislead.

    Parameters
    ----------
    prices, counts
        Of each function, and how often it is called.
    lowered
        The network.
    device, predictor
        What is priced for, and what predicted.
    """
    bases = {price.basis for price in prices.values()}
    is_predicted, is_cpu = bases != {"measured"}, device.kind == "cpu"
    of_device = predictor.remark_on(device) if isinstance(predictor, TrainedPredictor) else None
    of_predictions = (of_device, remark_on_calibration(device)) if is_predicted else ()
    remarks = [remark for remark in of_predictions if remark]
    waits = "; waits for what caches do not keep are added" if is_cpu else "; start-ups are added"
    for basis, what in (
        ("measured", f"were measured by themselves{waits}"),
        ("analytic estimate", "are no task of Ansor's and have the analytic estimate"),
        (
            "moved bytes",
            "have no readable program and are priced by the bytes they move, the "
            "least that they take",
        ),
    ):
        number = sum(counts[name] for name, price in prices.items() if price.basis == basis)
        if number:
            remarks.append(f"{number} of {sum(counts.values())} operators {what}")
    if without := lowered.num_tasks_without_record:
        num_tasks = without + len(set(lowered.searched.values()))
        remarks.append(
            f"{without} of {num_tasks} tasks have no record and run TVM's own schedule, in the "
            "layouts that are searched, where it is slower"
        )
    if is_predicted and device.kind == "gpu" and not lowered.searched:
        remarks.append(
            "TVM's own schedules for GPUs are fallbacks, and several times slower than those of a "
            "search: compare devices by trials or by logs"
        )
    if device.kind == "accelerator":
        remarks.append(f"{device.name} is predicted for as a GPU: no accelerator was trained on")
    return remarks
