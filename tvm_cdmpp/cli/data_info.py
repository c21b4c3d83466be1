"""`tvm-cdmpp data info`: what a record store holds, and how good its labels are."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tvm_cdmpp.data import Ints, RecordStore


def add_info(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "info",
        help="tell what a record store holds, and how good its labels are",
        description="Tell what a record store holds: devices, operators, networks, failures, "
        "latencies and their noise, leaves of the programs, and the official splits.",
    )
    parser.add_argument("store", type=Path, metavar="DIR", help="the record store")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="write a page of plots")
    parser.add_argument(
        "--alike",
        action="store_true",
        help="also compare programs with equal features, for devices without repeated "
        "measurements; about a minute per million programs",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(func=run_info)


def run_info(args: argparse.Namespace) -> int:
    """Describe a store."""
    from tvm_cdmpp.data import RecordStore

    store = RecordStore.open(args.store)
    overview = store_overview(store, _find_alike(store) if args.alike else None)
    if args.json:
        print(json.dumps(overview, indent=1))
    else:
        _print_overview(overview)
    if args.out:
        from tvm_cdmpp.report import plot_overview

        plot_overview(overview, args.out)
    return 0


def store_overview(store: "RecordStore", alike: "Ints | None" = None) -> dict[str, Any]:
    """Describe a store, with its `leaves`: of a sample where not all programs are extracted.

    Parameters
    ----------
    store
        The records.
    alike
        Of `group_alike`, to compare the programs that look alike.
    """
    from tvm_cdmpp.data import count_leaves, describe_store
    from tvm_cdmpp.train import find_features, sample_leaf_counts

    features = find_features(store)
    counts = sample_leaf_counts(store) if features is None else features.leaf_counts
    overview = describe_store(store, alike=alike)
    return {**overview, "leaves": count_leaves(counts, sampled=features is None)}


def _find_alike(store: "RecordStore") -> "Ints":
    """Find the programs that look alike, with a bar on a terminal."""
    from tvm_cdmpp.cli.show import show_bar
    from tvm_cdmpp.train import group_alike

    with show_bar("programs", len(store)) as show:
        return group_alike(store, show)


def _print_overview(overview: dict[str, Any]) -> None:
    from rich.text import Text

    from tvm_cdmpp.cli.show import print_table, stdout_console

    console = stdout_console()
    again, failed = overview["measured_again"], overview["failed"]
    console.print(
        Text(
            f"{overview['records']:,} programs, {overview['tasks']:,} tasks, "
            f"{overview['workloads']:,} workloads; {failed:,} failed, {again:,} measured again"
        )
    )
    header = ["device", "tasks", "programs", "failed", "median", "flagged", "noise floor", "basis"]
    print_table(console, "Devices", header, [_device_row(row) for row in overview["devices"]])
    console.print(
        Text(
            "Noise floor: mean absolute percentage error of a perfect predictor (its median in "
            "brackets); with >=, no programs were measured again in another log. Flagged: measured "
            "at a contended time or on a noisy machine only, or faster than the device allows."
        )
    )
    _print_alike(console, overview["devices"])
    for what in ("operators", "networks"):
        header = [what[:-1], "workloads", "programs"]
        rows = [
            [row[what[:-1]], f"{row['workloads']:,}", f"{row['records']:,}"]
            for row in overview[what]
        ]
        print_table(console, what.capitalize(), header, rows)
    leaves = overview["leaves"]
    kind = "in a sample of" if leaves["sampled"] else "in"
    rows = [[str(n), f"{count / leaves['programs']:.1%}"] for n, count in leaves["counts"].items()]
    print_table(
        console, f"Leaves {kind} {leaves['programs']:,} programs", ["leaves", "share"], rows
    )
    parts = ["train", "validation", "test", "left_out"]
    rows = [
        [row["name"], *(f"{row[part]:,}" if part in row else "-" for part in parts)]
        for row in overview["splits"]
    ]
    print_table(console, "Official splits, in programs", ["split", *parts], rows)
    for remark in _remarks_on_splits(overview["splits"]):
        console.print(Text(remark))


def _remarks_on_splits(splits: list[dict[str, Any]]) -> list[str]:
    """Say what each split is for, or why there is none: once for all of the same reason."""
    remarks, names_by_reason = [], dict[str, list[str]]()
    for row in splits:
        if "error" in row:
            reason = row["error"].replace(f" '{row['name']}'", "")
            names_by_reason.setdefault(reason, []).append(row["name"])
        else:
            remarks.append(f"{row['name']}: {row['note']}")
    return remarks + [f"{', '.join(names)}: {why}" for why, names in names_by_reason.items()]


def _device_row(row: dict[str, Any]) -> list[str]:
    from tvm_cdmpp.cli.show import bound_of, latency, noise_floor

    noise = row["noise"]
    return [
        row["device"],
        f"{row['tasks']:,}",
        f"{row['records']:,}",
        f"{row['failed'] / row['records']:.1%}",
        latency(row["latency_s"]["p50"]),
        f"{sum(row['flags'].values()):,}",
        noise_floor(noise, bound_of(noise["basis"])),
        noise["basis"],
    ]


def _print_alike(console: "Console", devices: list[dict[str, Any]]) -> None:
    """Print what programs that look alike tell, where they were looked for."""
    from rich.text import Text

    from tvm_cdmpp.cli.show import noise_floor, print_table

    rows = [
        [row["device"], f"{row['alike']['pairs']:,}", noise_floor(row["alike"], "<= ")]
        for row in devices
        if row["alike"]
    ]
    if rows:
        header = ["device", "groups", "noise at most"]
        print_table(console, "Programs of one task with equal features", header, rows)
        console.print(
            Text(
                "They are one program to a predictor. Most were measured in one run, so what "
                "differs between runs is hardly in this noise."
            )
        )
