"""`tvm-cdmpp eval`: how well trained weights predict the measurements of a record store.

Progress goes to stderr, the tables by device and by class of operator to stdout. Programs that
failed, or that no features could be extracted of, are counted and left out.
"""

import argparse
import json
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli.inputs import SPLITS
from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.models import Prediction, TrainingRows

_PARTS = ("train", "validation", "test", "left_out")
_COLUMNS = (
    "programs", "tasks", "MAPE", "by task", "median", "level known", "top-1", "top-5", "tau",
    "covered",
)  # fmt: skip
_LEGEND = (
    "Errors are absolute and relative to the measured latency: their mean over programs (90 % "
    "interval over tasks), mean over tasks, median, and mean if the level of each task were known. "
    "Top-1: the best latency of a task relative to that of the program predicted to be the "
    "fastest. Covered: measured latencies within the 90 % interval of their prediction. Noise "
    "floor: mean error (median in brackets) of a perfect predictor, a lower bound with >=."
)


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "eval",
        help="tell how well weights predict the measurements of a record store",
        description="Predict the programs of a record store and compare with what was measured, by "
        "device and by class of operator, next to the noise of the measurements.",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the record store")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help=f"only programs of an official split: {SPLITS}; its test part says nothing of "
        "weights that were trained on it (default: all programs)",
    )
    parser.add_argument(
        "--part",
        choices=_PARTS,
        metavar="PART",
        help=f"part of the split: {', '.join(_PARTS)} (default: test)",
    )
    parser.add_argument(
        "--weights",
        default="shipped",
        metavar="W",
        help="shipped, evaluation (trained for the official split `networks`) or a file (default: "
        "shipped)",
    )
    parser.add_argument(
        "--per-task", type=int, metavar="N", help="programs of a task at most, drawn at random"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate weights on a store."""
    if args.per_task is not None and args.per_task < 1:
        raise ConfigError(f"--per-task must be at least 1; got {args.per_task}")
    if args.part and not args.split:
        raise ConfigError(f"--part {args.part} is a part of a split: name it with --split")
    result = evaluate_weights(
        args.store, args.weights, args.split, args.part or "test", args.per_task
    )
    if result["warning"]:
        print(f"warning: {result['warning']}", file=sys.stderr)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        _print_result(result)
    return 0


def evaluate_weights(
    folder: Path, weights: str, split: str | None, part: str, per_task: int | None
) -> dict[str, Any]:
    """Evaluate weights on a store.

    Parameters
    ----------
    folder
        The record store.
    weights
        As `load_weights` takes them.
    split, part
        Official split and its part; all programs where the split is None.
    per_task
        Programs of a task at most.

    Returns
    -------
    result
        Plain data: `devices` and `operators` hold the figures of `Scores` by name, None where every
        program failed; those of devices with 90 % `intervals` over their tasks, and with their
        `noise`, as `tvm_cdmpp.data.noise` has it. `warning` says that the weights were trained for
        another split, or have learned from records of one of the devices; None where they were not,
        or do not tell.
    """
    import numpy as np

    from tvm_cdmpp.cli.show import show_bar
    from tvm_cdmpp.data import RecordStore, make_labels, noise_by, official_split, read_measurements
    from tvm_cdmpp.models import load_weights
    from tvm_cdmpp.train import evaluate, load_features, rows_of_store, sample_tasks

    predictor = load_weights(weights)  # a wrong name is told before anything takes time
    store = RecordStore.open(folder)
    chosen = getattr(official_split(store, split), part) if split else np.arange(len(store))
    if per_task is not None:
        chosen = sample_tasks(store, chosen, per_task)
    with show_bar("features", len(store)) as show:
        features = load_features(store, show)
    measured = read_measurements(store)
    rows, used = rows_of_store(store, features, chosen, labels=make_labels(store, measured))
    with show_bar("programs", len(rows)) as show:
        predictions = evaluate(predictor, rows, on_rows=show)
    noise = noise_by(store, measured, "device")
    devices = _scores(store.tasks["device"].to_pylist(), rows, predictions, with_intervals=True)
    for name, figures in devices.items():
        if figures:
            known = noise[(name,)].to_json()
            figures["noise"] = {n: known[n] for n in ("floor_mape", "floor_median_ape", "basis")}
    return {
        "weights": weights,
        "store": store.content_hash,
        "split": split,
        "part": part if split else None,
        "per_task": per_task,
        "warning": _leak(weights, getattr(predictor, "about", {}), split, devices),
        "programs": int(np.isfinite(rows.latencies_s).sum()),
        "failed": int(np.isinf(rows.latencies_s).sum()),
        "without_features": len(chosen) - len(used),
        "devices": devices,
        "operators": _operators(store, rows, predictions),
    }


def _leak(
    weights: str, about: Mapping[str, Any], split: str | None, devices: Container[str]
) -> str | None:
    """Say that weights, or those that they started from, may know what they are scored on."""
    known = about
    while known:
        for learned in (known, _target_of(known)):
            device, records = learned.get("device"), learned.get("records")
            if isinstance(device, str) and device in devices:
                return (
                    f"the weights '{weights}' learned from {records or 'some'} records of "
                    f"{device}, which may be among these programs"
                )
        known = known.get("from") or {}
    while split is not None and "split" in about:
        if about["split"] != split:
            trained = "on all records" if about["split"] is None else f"for '{about['split']}'"
            return (
                f"the weights '{weights}' were trained {trained}, not for the split '{split}', so "
                "programs of this part may have been trained on"
            )
        about = about.get("from") or {}
    return None


def _target_of(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the device that weights were fine-tuned for, and on how many of its records."""
    settings = about.get("settings")
    target = settings.get("target") if isinstance(settings, Mapping) else None
    return target if isinstance(target, Mapping) else {}


def _operators(
    store: "RecordStore", rows: "TrainingRows", predictions: "Prediction"
) -> dict[str, dict[str, Any] | None]:
    from tvm_cdmpp.train import operator_of_tasks

    return _scores(operator_of_tasks(store), rows, predictions)


def _scores(
    names_of_tasks: list[str],
    rows: "TrainingRows",
    predictions: "Prediction",
    *,
    with_intervals: bool = False,
) -> dict[str, dict[str, Any] | None]:
    """Score the predictions by what tasks are called."""
    import numpy as np

    from tvm_cdmpp.train import bootstrap, score

    names = np.array(names_of_tasks)[rows.tasks]
    result: dict[str, dict[str, Any] | None] = {}
    for name in np.unique(names).tolist():
        some = np.flatnonzero(names == name)
        measured_s = rows.latencies_s[some]
        if not np.isfinite(measured_s).any():
            result[name] = None
            continue
        compared = (measured_s, predictions.latency_s[some], rows.groups[some])
        spread = None if predictions.spread is None else predictions.spread[some]
        order_s = predictions.order_s[some]
        figures = score(*compared, spread=spread, order_s=order_s).to_json()
        if with_intervals:
            figures["intervals"] = bootstrap(*compared, spread=spread, order_s=order_s)
        result[name] = figures
    return result


def _print_result(result: dict[str, Any]) -> None:
    from rich.text import Text

    from tvm_cdmpp.cli.show import print_table, stdout_console

    console = stdout_console()
    where = f"{result['part']} part of split {result['split']}" if result["split"] else "all"
    console.print(
        Text(
            f"weights {result['weights']}; programs: {where}, {result['programs']:,} measured, "
            f"{result['failed']:,} failed, {result['without_features']:,} without features"
        )
    )
    rows = [[name, *_cells(row), _noise(row)] for name, row in result["devices"].items()]
    print_table(console, "Devices", ["device", *_COLUMNS, "noise floor"], rows)
    rows = [[name, *_cells(row)] for name, row in result["operators"].items()]
    print_table(console, "Operators", ["operator", *_COLUMNS], rows)
    console.print(Text(_LEGEND))


def _cells(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return ["-"] * len(_COLUMNS)
    mape = _percent(figures["mape"])
    if "intervals" in figures:
        mape += " ({} to {})".format(*map(_percent, figures["intervals"]["mape"]))
    return [
        f"{figures['programs']:,}",
        f"{figures['tasks']:,}",
        mape,
        *(_percent(figures[name]) for name in ("mape_by_task", "median_ape", "within_task")),
        *(_share(figures[name]) for name in ("top1", "top5", "tau", "coverage90")),
    ]


def _noise(figures: dict[str, Any] | None) -> str:
    from tvm_cdmpp.cli.show import bound_of, noise_floor

    return noise_floor(figures["noise"], bound_of(figures["noise"]["basis"])) if figures else "-"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}%" if value < 999.5 else f"{value:,.0f}%"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
