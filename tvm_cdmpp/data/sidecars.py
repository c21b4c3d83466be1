"""Files next to a log that are no logs, and what the calibrations among them say of its lines."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.files import append_lines, locked, parse_json, write_atomically

_PATIENCE_S = 60.0
_SIDECAR = re.compile(r".+\.(calibration\.jsonl|history\.json)|comparison\.json")


def is_sidecar(name: str) -> bool:
    """Tell whether a file of this name is what a command writes next to logs."""
    return _SIDECAR.fullmatch(name) is not None


def read_noisy_lines(log: Path) -> frozenset[int]:
    """Return the lines of a log, from 1, that were measured while the machine was noisy.

    `LOG.calibration.jsonl` tells (see `tvm_cdmpp.measure.calibration.CalibrationRow`): noisy is
    what was marked so, and what is so by the lowest calibration of its run, which may have come
    later. Of two calibrations that vouch for a line the later one holds.

    Raises
    ------
    RecordError
        The file holds something else.
    """
    file = log.with_name(f"{log.name}.calibration.jsonl")
    if not file.is_file():
        return frozenset()
    rows: list[dict[str, Any]] = []
    lowest_s: dict[float, float] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = parse_json(line)
        except ValueError:
            continue  # half a line of a killed run, which vouches for nothing
        try:
            latency_s = float(row["latency_s"])
            lowest_s[row["run"]] = min(latency_s, lowest_s.get(row["run"], latency_s))
            rows.append({**row, "end": row["first_line"] + row["num_lines"]})
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{file}:{number} is no calibration ({type(error).__name__}: {error}); repair or "
                "remove the file"
            ) from error
    noisy: set[int] = set()
    for row in rows:
        lines = range(row["first_line"] + 1, row["end"] + 1)
        bound_s = (1 + row["bound"]) * lowest_s[row["run"]]
        if row["noisy"] or row["latency_s"] > bound_s:
            noisy.update(lines)
        else:
            noisy.difference_update(lines)
    return frozenset(noisy)


def add_workloads(
    log: Path, workloads: Iterable[tuple[str, str]], functions: Mapping[str, str] | None = None
) -> None:
    """Write what the workload keys of a log mean into `workloads.jsonl` next to it.

    Lines of other logs and other workloads, which the file may hold already, are kept; searches
    that start side by side take turns. Lines that are no JSON, such as half a line of a run that
    was killed, are moved to `workloads.jsonl.bad`.

    Parameters
    ----------
    log
        The log.
    workloads
        Each key, and the DAG that it means as `tvm.ir.save_json` writes it.
    functions
        TVM's names of the functions that they are of, by key, as far as they are known.

    Raises
    ------
    OSError
        The file cannot be read or written.
    RecordError
        Another process is writing it, and does not end.
    """
    file = log.with_name("workloads.jsonl")
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(log.with_name(".workloads.jsonl.lock"), f"a change of {file}", wait_s=_PATIENCE_S):
        known, torn = dict[bytes, None](), list[str]()
        for line in file.read_bytes().splitlines() if file.exists() else []:
            if _is_json(line):
                known[line] = None
            elif line.strip():
                torn.append(line.decode(errors="replace"))
        for key, dag in workloads:
            entry = {"workload_key": key, "files": [log.name], "dag": dag}
            known.pop(json.dumps(entry).encode(), None)  # as it was written without its function
            if functions and key in functions:
                entry["function"] = functions[key]
            known[json.dumps(entry).encode()] = None
        if torn:
            append_lines(file.with_name(f"{file.name}.bad"), torn)
        write_atomically(file, b"".join(line + b"\n" for line in known))


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True
