"""What an import of published logs keeps, how long it takes, and how much memory.

    python -m benchmarks.data_import LOGS STORE [--networks N1,N2]

runs `tvm-cdmpp data import` as its own process, with the devices of `ansor_logs_sources.json`, and
then opens and reads the store. With `--networks`, logs with workloads whose DAG is not known are
imported once more, into a store that is not kept, and these networks' tasks are derived for them.
Writes `results/data-import.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.data import UNKNOWN, RecordStore

SOURCES = Path(__file__).with_name("ansor_logs_sources.json")


def main() -> None:
    """Import, read, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, help="folder of logs")
    parser.add_argument("store", type=Path, help="folder of the record store, which must be new")
    parser.add_argument("--networks", metavar="N1,N2,...", help="to derive workloads from")
    args = parser.parse_args()
    if args.store.exists():
        sys.exit(f"{args.store} exists; give a new folder, so that the whole import is measured")
    imported = _import([args.logs], args.store)
    result = {
        **provenance("pyarrow", "orjson"),
        "import": imported,
        "reading": _read(args.store),
    }
    write_json(RESULTS / "data-import.json", result)
    if args.networks:
        unknown = [
            args.logs / name
            for source in imported["sources"]
            for name, first in source["first"].items()
            if UNKNOWN in first
        ]
        with tempfile.TemporaryDirectory() as folder:
            derived = _import(unknown, Path(folder) / "store", args.networks)
        write_json(
            RESULTS / "data-import.json",
            {**result, "derived": {"networks": args.networks, **derived}},
        )


def _import(logs: list[Path], store: Path, networks: str = "") -> dict[str, Any]:
    command = [sys.executable, "-m", "tvm_cdmpp", "data", "import", *map(str, logs)]
    command += ["--out", str(store), "--sources", str(SOURCES), "--json", "--networks", networks]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        # Of this one child, unlike resource.getrusage.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    report = json.loads(output)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "input_bytes": sum(
            path.stat().st_size
            for given in logs
            for path in (given.iterdir() if given.is_dir() else [given])
        ),
        "store_bytes": sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        "records": report["records"],
        "lines": report["lines"],
        "bins": report["bins"],
        "sources": _by_source(report["logs"]),
        "skipped": report["skipped"],
        "ignored": report["ignored"],
    }


def _by_source(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the logs of one device and source up."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for log in logs:
        groups.setdefault((log["device"], log["source"]), []).append(log)
    rows = []
    for (device, source), members in groups.items():
        bins: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for log in members:
            bins.update(log["bins"])
            unknown.update(log["unknown"])
        lines = sum(log["lines"] for log in members)
        rows.append(
            {
                "device": device,
                "source": source,
                "licence": members[0]["licence"],
                "logs": len(members),
                "lines": lines,
                "bins": dict(bins),
                "recovered": sum(log["recovered"] for log in members) / lines,
                "unknown_workloads": len(unknown),
                "first": {log["name"]: log["first"] for log in members},
            }
        )
    return rows


def _read(path: Path) -> dict[str, Any]:
    """Time what readers do."""
    store = RecordStore.open(path)
    rows = store.rows_of(0)
    actions = {
        "open": lambda: RecordStore.open(path),
        "latencies of all records": store.latencies_s,
        "device and operator of all records": lambda: store.columns("device", "operator"),
        "lines of the first task": lambda: store.records(rows),
    }
    return {
        "records": len(store),
        "tasks": store.tasks.num_rows,
        "workloads": store.workloads.num_rows,
        "records_of_first_task": len(rows),
        "seconds": {name: _median_seconds(action) for name, action in actions.items()},
    }


def _median_seconds(action: Any) -> float:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
