"""`tvm-cdmpp device`: which devices are known, which are here; adding and removing own ones.

`device calibrate` is a module of its own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import calibrate
from tvm_cdmpp.errors import CDMPPError, ConfigError

if TYPE_CHECKING:
    from tvm_cdmpp.devices import DeviceSpec

_UNITS = (
    ("_bytes_per_s", 1e9, "GB/s"),
    ("_flops", 1e12, "TFLOP/s"),
    ("_ops", 1e12, "TOP/s"),
    ("_hz", 1e9, "GHz"),
)
_BINARY_UNITS = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "device",
        help="show, detect, add, remove and calibrate devices",
        description="The devices that the predictor knows figures of.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    show = actions.add_parser(
        "show",
        help="list all devices, or all figures of one with their sources",
        description="List all devices, or all figures of one with their sources.",
    )
    which = show.add_mutually_exclusive_group()
    which.add_argument(
        "name", nargs="?", metavar="NAME", help="a device, such as t4, or this machine"
    )
    which.add_argument("--file", type=Path, help="the devices of a file instead of the known ones")
    show.set_defaults(func=run_show)

    detect = actions.add_parser(
        "detect",
        help="describe the CPU and the CUDA GPUs of this machine",
        description="Describe the CPU and the CUDA GPUs of this machine.",
    )
    detect.add_argument(
        "--json", action="store_true", help="print them in the form that `device add` takes"
    )
    detect.set_defaults(func=run_detect)

    add = actions.add_parser(
        "add",
        help="make the devices of a file known",
        description="Check a file of devices and put them among the user's; equal names replace.",
    )
    add.add_argument("file", type=Path, metavar="FILE", help="JSON, as `device detect --json`")
    add.set_defaults(func=run_add)

    remove = actions.add_parser(
        "remove",
        help="forget devices that were added",
        description="Forget devices that were added; built-in ones stay.",
    )
    remove.add_argument("names", nargs="+", metavar="NAME", help="a device of yours")
    remove.set_defaults(func=run_remove)

    calibrate.add_parser(actions)


def run_show(args: argparse.Namespace) -> int:
    """Print the table of all devices, or the figures of some."""
    from tvm_cdmpp.devices import detect_cpu, find_device, load_registry, read_device_file

    if args.file is not None:
        _print_figures(read_device_file(args.file))
    elif args.name is not None:
        _print_figures([find_device(args.name)])
    else:
        known, here = load_registry().devices, detect_cpu()
        others = [device for device in known if device.name != here.name]
        _print_overview([*others, here])
        print(f"this machine: {here.name}")
    return 0


def run_detect(args: argparse.Namespace) -> int:
    """Print the devices of this machine; 1 if there is a CUDA driver that fails."""
    from tvm_cdmpp.devices import detect_cpu, detect_gpus, dump_devices

    devices, problem = [detect_cpu()], ""
    try:
        devices += detect_gpus()
    except CDMPPError as error:
        problem = str(error)
    if args.json:
        print(dump_devices(devices), end="")
    else:
        _print_figures(devices)
        if len(devices) == 1 and not problem:
            print("\nno CUDA GPU: there is no driver, or it shows none")
    if problem:
        _print_problem(problem)
    return 1 if problem else 0


def run_add(args: argparse.Namespace) -> int:
    """Put the devices of a file among the user's."""
    from tvm_cdmpp.devices import add_devices, read_device_file, user_device_file

    devices, user_file = read_device_file(args.file), user_device_file()
    if not devices:
        raise ConfigError(f"{args.file} holds no device; `device detect --json` shows the form.")
    replaced = add_devices(devices, user_file)
    for device in devices:
        print(f"{'replaced' if device.name in replaced else 'added'} {device.name}")
    print(f"in {user_file}")
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """Take devices out of the user's."""
    from tvm_cdmpp.devices import remove_devices, user_device_file

    user_file = user_device_file()
    for name in remove_devices(args.names, user_file):
        print(f"removed {name}")
    print(f"from {user_file}")
    return 0


def _print_overview(devices: "Sequence[DeviceSpec]") -> None:
    from tvm_cdmpp.cli.show import print_table, stdout_console

    columns = ("kind", "cores", "clock_hz", "peak_flops", "l2_bytes", "bandwidth_bytes_per_s")
    header = ("device", "kind", "cores", "clock", "float32", "L2", "memory")
    rows = [
        [device.name, *(_with_unit(name, getattr(device, name)) for name in columns)]
        for device in devices
    ]
    print_table(stdout_console(), f"{len(devices)} devices", header, rows)


def _print_figures(devices: "Sequence[DeviceSpec]") -> None:
    from rich.table import Table
    from rich.text import Text

    from tvm_cdmpp.cli.show import print_whole, stdout_console
    from tvm_cdmpp.devices import DEVICE_FIELDS, FIGURES

    console = stdout_console()
    for number, device in enumerate(devices):
        if number:
            console.print()
        aliases = f", also {', '.join(device.aliases)}" if device.aliases else ""
        console.print(Text(f"{device.name} ({device.kind}){aliases}"))
        if device.note:
            console.print(Text(device.note))
        if device.calibration is not None:
            about = calibrate.describe_calibration(device.calibration)
            console.print(Text(about), soft_wrap=True)
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(overflow="fold")
        sources = {
            "is_gpu": "1 for a GPU, 0 for others",
            **device.sources,
            "peak_flops": "cores x clock x lanes x multiply-adds x 2",
        }
        others = [name for name in FIGURES if name not in DEVICE_FIELDS]
        for title, names in (("the predictor sees", DEVICE_FIELDS), ("also known", others)):
            table.add_row(Text(f"{title}:", "bold"))
            for name in names:
                value = int(device.kind == "gpu") if name == "is_gpu" else getattr(device, name)
                source = Text(sources.get(name, ""))
                table.add_row(name, _with_unit(name, value), source)
        print_whole(console, table, fold=True)


def _print_problem(problem: str) -> None:
    from rich.text import Text

    from tvm_cdmpp.cli.show import stderr_console

    stderr_console().print(Text(problem))


def _with_unit(name: str, value: Any) -> str:
    """Write a figure with the unit that its name tells."""
    if value is None:
        return "unknown"
    for suffix, scale, unit in _UNITS:
        if name.endswith(suffix):
            return f"{value / scale:.4g} {unit}"
    if "_bytes" in name:
        scale, unit = next((s, u) for s, u in _BINARY_UNITS if value >= s or s == 1)
        return f"{value / scale:.4g} {unit}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
