"""What an import did, line by line: the bins of each log."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.data.inputs import LogFile
from tvm_cdmpp.data.lines import COPY, DUPLICATE, FAILED, KEPT, UNKNOWN
from tvm_cdmpp.data.merge import Source
from tvm_cdmpp.data.spool import Spooled

Mask = npt.NDArray[np.bool_]

_STORED = (KEPT, FAILED, DUPLICATE, COPY)


@dataclass(kw_only=True, slots=True)
class InputReport:
    """What became of one log's lines; the bins sum to `lines`."""

    name: str
    device: str
    source: str
    licence: str
    network: str
    sha256: str
    lines: int
    bins: dict[str, int]
    first: dict[str, str]
    """Line number and reason of the first line in a bin."""
    unknown: dict[str, int]
    """Lines by workload key whose meaning is not known."""
    knowledge: str = ""
    """Changes with what was known of workloads when the log was read."""
    shares: list[int] = field(default_factory=list)
    """Places of other logs in the store that have measurements of this one: it is a copy of them,
    one of them has grown to it, or it to one of them."""

    @property
    def recovered(self) -> int:
        """Lines that are in the store."""
        return sum(self.bins.get(name, 0) for name in _STORED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What an import did."""

    inputs: list[InputReport]
    """The logs that were read."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Logs that were not read, and why."""
    read_again: list[str] = field(default_factory=list)
    """Logs of `inputs` that were in the store, of which lines of unknown workloads were read."""
    resumed: int = 0
    """Logs of `inputs` that an earlier import, which did not end, had read, wholly or in part."""
    num_records: int
    """Distinct programs in the store."""
    content_hash: str


def report_log(
    log: LogFile, sha256: str, knowledge: str, spooled: Spooled, source: Source, is_first: Mask,
    is_copy: Mask,
) -> InputReport:  # fmt: skip
    """Return what became of a log's lines.

    Parameters
    ----------
    log, sha256, knowledge, spooled
        The log, and what it came to.
    source
        Its spooled records.
    is_first, is_copy
        Of `Placement`, for each of these.
    """
    bins, first = dict(spooled.bins), dict(spooled.first)
    if not is_first.all():
        counts: Counter[str] = Counter()
        lines: dict[str, int] = {}
        begin = 0
        for batch in source.batches(["line", "error_nos"]):
            failed = batch["error_nos"].flatten().to_numpy() != 0
            rows = slice(begin, begin + batch.num_rows)
            begin = rows.stop
            kinds = np.select([is_copy[rows], ~is_first[rows], failed], [3, 2, 1], 0)
            for kind, name in enumerate((KEPT, FAILED, DUPLICATE, COPY)):
                places = np.flatnonzero(kinds == kind)
                counts[name] += len(places)
                if len(places):
                    lines.setdefault(name, batch["line"][int(places[0])].as_py())
        for name in _STORED:
            bins.pop(name, None)
            known = first.pop(name, "")
            if name in lines:
                bins[name] = counts[name]
                if name != KEPT:
                    same = known.split(":")[0] == str(lines[name])
                    first[name] = known if same else str(lines[name])
    return InputReport(
        name=log.name, device=log.device, source=log.source, licence=log.licence,
        network=log.network, sha256=sha256, lines=spooled.lines, bins=bins, first=first,
        unknown=dict(spooled.unknown), knowledge=knowledge,
    )  # fmt: skip


def add_lines(entry: Mapping[str, Any], again: InputReport) -> InputReport:
    """Join what the store says of a log with what became of its lines of unknown workloads."""
    before = InputReport(**entry)
    bins = Counter({name: count for name, count in before.bins.items() if name != UNKNOWN})
    first = {name: text for name, text in before.first.items() if name != UNKNOWN}
    for name, text in again.first.items():
        first[name] = min(first.get(name, text), text, key=lambda t: int(t.split(":")[0]))
    return replace(
        before, bins=dict(bins + Counter(again.bins)), first=first, unknown=again.unknown,
        knowledge=again.knowledge,
    )  # fmt: skip
