"""`tvm-cdmpp predict`: how long a network takes on devices that need not be here."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.inputs import add_input_forms, parse_input_dtypes, parse_input_shapes
from tvm_cdmpp.cli.messages import drop_native_messages
from tvm_cdmpp.cli.outputs import check_outputs, files_of_log, files_of_networks
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.files import write_atomically

if TYPE_CHECKING:
    from tvm_cdmpp.devices import DeviceSpec
    from tvm_cdmpp.replay import NetworkPrediction

_START = "start-up of the network and its operators"
_LEAST_SHARE = 0.01


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "predict",
        help="predict a network's latency on devices that need not be here",
        description="Predict how long a network takes, by operator and in all, with 90 % "
        "intervals. No device is needed and nothing is measured.",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name (resnet-18, ...) or a file")
    parser.add_argument(
        "--device", required=True, metavar="D[,D2]", help="known devices, such as t4,a100-40gb"
    )
    parser.add_argument(
        "--log", type=Path, metavar="L", help="Ansor log whose best records are the schedules"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=0,
        metavar="N",
        help="programs per task and generation that the predictor looks through for the best "
        "schedule; 0: TVM's own schedules (default: 0)",
    )
    parser.add_argument(
        "--batch", default="", metavar="N[,N2]", help="sizes of the batch (default: the file's)"
    )
    parser.add_argument(
        "--queues",
        type=int,
        default=1,
        metavar="N",
        help="operators that a GPU or an accelerator runs side by side, by their data "
        "dependencies (default: 1)",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write the timeline: a PNG where the name ends so, else a Chrome trace; one file per "
        "device and batch where there are several",
    )
    parser.add_argument(
        "--weights", default="shipped", metavar="W",
        help="shipped, evaluation or a file, such as one of `adapt` (default: shipped)",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw all side by side")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_input_forms(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Predict, print, draw."""
    inputs: dict[str, Any] = {
        "input_shapes": parse_input_shapes(args.input_shape),
        "input_dtypes": parse_input_dtypes(args.input_dtype),
    }
    taken = files_of_networks([args.network], "the network's file")
    taken += [("that of --weights", Path(args.weights))]
    taken += [] if args.log is None else files_of_log(args.log, "that of --log")
    check_outputs([("--trace", args.trace), ("--plot", args.plot)], taken)
    if args.plot is not None and args.plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot writes a PNG, so its name must end in .png; got {args.plot}")
    names = [name.strip() for name in args.device.split(",") if name.strip()]
    if not names:
        raise ConfigError("--device takes names of devices, as in t4,a100-40gb; got none")
    from tvm_cdmpp.devices import find_device

    # TVM takes seconds to load; a wrong command line must not.
    _check_sources(args)
    devices = list(dict.fromkeys(map(find_device, names)))
    batches = _parse_batches(args.batch)
    with drop_native_messages():
        predictions = _forecast(args, devices, batches, inputs)
    # Files first: whoever reads what is printed may stop at any time.
    traces = [] if args.trace is None else _trace_files(predictions, args.trace)
    check_outputs([*(("--trace", file) for file in traces), ("--plot", args.plot)], taken)
    for prediction, file in zip(predictions, traces, strict=False):
        _write_trace(prediction, file)
    if args.plot is not None:
        from tvm_cdmpp.report import plot_devices

        plot_devices(predictions, args.plot)
    if args.json:
        json.dump(_as_json(predictions), sys.stdout, indent=1)
        print()
    else:
        _print(predictions)
        for option, file in [*(("trace", file) for file in traces), ("plot", args.plot)]:
            if file is not None:
                show.stdout_console().print(f"{option}: {file}", soft_wrap=True, markup=False)
    return 0


def _forecast(
    args: argparse.Namespace,
    devices: "Sequence[DeviceSpec]",
    batches: "Sequence[int | None]",
    inputs: Mapping[str, Any],
) -> "list[NetworkPrediction]":
    """Predict for each device and batch, and tell each as soon as it is known."""
    from tvm_cdmpp.replay import NetworkForecast, QueueConfig

    predictions: list[NetworkPrediction] = []
    total = len(batches) * len(devices)
    with show.show_progress(show.stderr_console(), "forecasts", total, 0) as show_step:
        for batch in batches:
            forecast = None
            for device in devices:
                of = device.name if batch is None else f"{device.name}, batch {batch}"
                show_step(f"forecast {len(predictions) + 1} of {total}: {of}", 0, "")
                forecast = forecast or NetworkForecast(
                    args.network, log=args.log, trials=args.trials, weights=args.weights,
                    batch=batch, **inputs,
                )  # fmt: skip
                queues = args.queues if device.kind != "cpu" else 1
                found = forecast.on(device, QueueConfig.of(device.kind, queues))
                predictions.append(found)
                spread = show.latency_range(*found.interval_s, found.latency_s)
                show_step(f"{of}: {show.latency(found.latency_s)} (90 %: {spread})", 1, "")
    return predictions


def _check_sources(args: argparse.Namespace) -> None:
    """Refuse what is not there to predict, or to predict by."""
    from tvm_cdmpp.models import find_weights
    from tvm_cdmpp.networks import check_network_is_there

    if args.queues < 1:
        raise ConfigError(f"--queues must be at least 1; got {args.queues}")
    if args.trials < 0:
        raise ConfigError(f"--trials must not be negative; got {args.trials}")
    if args.log is not None and args.trials:
        raise ConfigError("Give --log or --trials: a log has the schedules already")
    if args.log is not None and not args.log.is_file():
        raise RecordError(f"There is no log {args.log} to take the schedules from")
    find_weights(args.weights)
    check_network_is_there(args.network)


def _parse_batches(text: str) -> list[int | None]:
    from tvm_cdmpp.networks import MOST_BATCH

    if not text:
        return [None]
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= MOST_BATCH for part in parts):
        raise ConfigError(f"--batch takes numbers from 1 to {MOST_BATCH}, as in 1,4; got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _as_json(predictions: "Sequence[NetworkPrediction]") -> dict[str, Any]:
    """Return `devices: {NAME: {...}}`; a device that comes with several batches names them."""
    several = len({p.batch for p in predictions}) > 1
    return {
        "network": predictions[0].network,
        "schedules": predictions[0].schedules,
        "devices": {
            f"{p.device} batch {p.batch}" if several else p.device: p.as_json() for p in predictions
        },
    }


def _print(predictions: "Sequence[NetworkPrediction]") -> None:
    console = show.stdout_console()
    for p in predictions:
        title = f"{p.network} on {p.device}, batch {p.batch}, schedules: {p.schedules}"
        header = (
            "operator", "shapes", "times", "each", "90 %", "share", "GFLOP/s", "held down by",
            "basis",
        )  # fmt: skip
        rows = [
            [
                show.shorten(task.name),
                task.shapes or "-",
                str(task.count),
                show.latency(task.latency_s),
                show.latency_range(*task.interval_s, task.latency_s),
                f"{100 * task.share:.1f}%",
                describe_rate(task.flops / task.latency_s / 1e9) if task.flops else "-",
                task.bound,
                task.basis,
            ]
            for task in sorted(p.tasks, key=lambda task: -task.share)
        ]
        if p.start_s:
            start = show.latency(p.start_s)
            rows.append([_START, "-", "1", start, "-", "-", "-", "start-up", "assumed"])
        show.print_table(console, title, header, rows)
        console.print(f"by class: {describe_shares(p.shares)}", soft_wrap=True, markup=False)
        for remark in p.remarks:
            console.print(f"note: {remark}", soft_wrap=True, markup=False)
    columns = ("device", "batch", "latency", "90 %", "memory", "mostly held down by")
    rows = [
        [
            p.device,
            str(p.batch),
            show.latency(p.latency_s),
            show.latency_range(*p.interval_s, p.latency_s),
            f"{p.peak_bytes / 1e6:.3g} MB",
            p.bound,
        ]
        for p in predictions
    ]
    show.print_table(console, predictions[0].network, columns, rows)


def describe_rate(gflops: float) -> str:
    """Write three digits; large figures with commas, not with an exponent."""
    return f"{float(f'{gflops:.3g}'):,.0f}" if gflops >= 100 else f"{gflops:.3g}"


def describe_shares(shares: Mapping[str, float]) -> str:
    """Say how much of the time each class of operator takes, but for those of less than 1 %."""
    return ", ".join(
        f"{name} {100 * share:.0f}%" for name, share in shares.items() if share >= _LEAST_SHARE
    )


def _trace_files(predictions: "Sequence[NetworkPrediction]", path: Path) -> list[Path]:
    """Return a file for each prediction."""
    if len(predictions) == 1:
        return [path]
    return [path.with_name(f"{path.stem}.{p.device}.{p.batch}{path.suffix}") for p in predictions]


def _write_trace(prediction: "NetworkPrediction", path: Path) -> None:
    from tvm_cdmpp.report import plot_timeline

    if path.suffix.lower() == ".png":
        plot_timeline(prediction, path)
    else:
        write_atomically(path, json.dumps(prediction.timeline.chrome_trace()).encode())
