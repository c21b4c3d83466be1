"""What a log tells of the forecast that goes by it: its targets, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import no_record_of, read_records, target_for
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import RecordError

Target: TypeAlias = Any


def targets_of(log: Path) -> list[Target]:
    """Return the targets of a log's records, the most frequent first."""
    records, problems = read_records(log)
    if not records:
        raise no_record_of(log, problems)
    counts = Counter(str(measured.task.target) for measured, _ in records.values())
    by_text = {str(measured.task.target): measured.task.target for measured, _ in records.values()}
    return [by_text[text] for text, _ in counts.most_common()]


def fitting_targets(targets: Sequence[Target], device: DeviceSpec) -> list[Target]:
    """Return the targets of a device's kind: those of CPUs for a CPU, all others for others."""
    is_cpu = device.kind == "cpu"
    return [target for target in targets if (str(target.kind.name) == "llvm") == is_cpu]


def remarks_on_targets(targets: Sequence[Target], device: DeviceSpec) -> tuple[str, ...]:
    """Say which targets of a log are of another kind of device, or of other cores; all count."""
    keys = list(target_for(device).keys)
    fitting = fitting_targets(targets, device)
    others = {tuple(t.keys): t for t in reversed(fitting) if list(t.keys) != keys}
    is_all = all(list(t.keys) != keys for t in fitting)
    what = "the log is of a search" if is_all else "some records of the log are of a search"
    of_others = (
        f"{what} for {target}, which {device.name} is not" for target in reversed(others.values())
    )
    cores = sorted({int(t.attrs["num-cores"]) for t in fitting if "num-cores" in t.attrs})
    of_cores = (
        f"the log is of a search for {number} cores, and {device.name} has {device.cores}: "
        "its programs split their work for the former"
        for number in cores
        if device.kind == "cpu" and number != device.cores
    )
    return (*of_others, *of_cores)


def no_schedule_of(log: Path, missing: Set[str], network: str) -> RecordError:
    """Return the error that says why a log gives no schedule of a network, and what to do.

    Parameters
    ----------
    log
        The log.
    missing
        Workload keys of all tasks of the network.
    network
        What to call it, with its batch.
    """
    records, _ = read_records(log)
    failed = sum(
        bool(result.error_no) and str(measured.task.workload_key) in missing
        for measured, result in records.values()
    )
    if failed:
        return RecordError(
            f"The log {log} has {failed} programs of {network}, and none of them ran. Search on "
            "with this log until some do, give another, or none."
        )
    return RecordError(
        f"No record of the log {log} is of a task of {network}, which has {len(missing)}. Give the "
        "log of a search of this network, with inputs of these shapes, or none."
    )
