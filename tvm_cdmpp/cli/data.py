"""`tvm-cdmpp data`: measure records. `data import` reads logs into a record store.

`data collect` is in `data_collect`, `data info` in `data_info`. Of an import, progress goes to
stderr, the table of bins to stdout. Exit code 0 when all logs were read, whatever their lines are;
running the same command again goes on after a kill.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import data_collect
from tvm_cdmpp.cli.data_info import add_info
from tvm_cdmpp.cli.inputs import add_inputs, input_options, inputs_of
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from tvm_cdmpp.data import ImportReport, InputReport
    from tvm_cdmpp.workloads import DerivedWorkloads

_SHOWN_EXAMPLES = 3
_LONGEST_EXAMPLE = 110


def add_parser(subparsers: Any) -> None:
    """Register the command and its sub-commands."""
    parser = subparsers.add_parser(
        "data", help="collect and import measurements", description="Work with measurements."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    data_collect.add_parser(commands)
    _add_import(commands)
    add_info(commands)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="read Ansor logs into a record store",
        description="Read Ansor logs (plain, gz or xz), folders of them, or TenSet's "
        "measure_records, into a record store. Running the same command again goes on after an "
        "interruption. Logs that are in the store already are not read again, but for lines of "
        "unknown workloads where more is known by now. A measurement counts once, however many "
        "logs have it.",
    )
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a log or a folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("records"),
        metavar="DIR",
        help="the record store (default: records)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="device of the logs that the sources file does not name, such as nvidia-v100",
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="FILE",
        help="JSON: device, source and licence by log (default: sources.json next to the logs)",
    )
    parser.add_argument(
        "--workloads",
        type=Path,
        metavar="FILE",
        help="DAGs by workload key (default: workloads.jsonl[.gz|.xz] next to the logs)",
    )
    parser.add_argument(
        "--networks",
        default="",
        metavar="N1,N2,...",
        help="networks (resnet-18, ... or model files) from which logs without DAGs may be; "
        "their tasks are derived for the target of the log",
    )
    add_inputs(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(func=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Find the logs, import them, and tell what became of every line."""
    from tvm_cdmpp.data import (
        WorkloadBook,
        check_device_name,
        check_folder,
        find_inputs,
        import_logs,
    )

    if not args.networks and any(input_options(args).values()):
        raise ConfigError(
            "--input-shape, --batch and --input-dtype are for model files given as --networks, and "
            "there is no --networks; give it, or leave them out"
        )
    device = None if args.device is None else check_device_name(args.device)
    check_folder(args.out)
    inputs = find_inputs(args.logs, device, args.sources, args.workloads)
    _warn_of_unknown({log.device for log in inputs.logs})
    book = WorkloadBook.read(inputs.workloads)
    # TVM takes seconds to load; a wrong command line must not.
    from tvm_cdmpp.workloads import TvmInspector

    with _progress_bar() as show:
        derived = _derived(args, show) if args.networks else None
        report = import_logs(
            inputs.logs, args.out, book, TvmInspector(derived),
            lambda progress: show(progress.doing, progress.done, progress.total),
        )  # fmt: skip
    failures = derived.failures if derived else {}
    if args.json:
        print(json.dumps(report_to_json(report, inputs.ignored, failures), indent=1))
    else:
        _print_report(report, inputs.ignored, failures, args.out)
    return 0


def _warn_of_unknown(devices: Iterable[str]) -> None:
    """Say which devices are not known yet; a device may be added after its records."""
    from tvm_cdmpp.devices import find_device

    for name in sorted(devices):
        try:
            find_device(name)
        except UnknownDeviceError as error:
            print(
                f"warning: {error} The records are stored under this name all the same; until it "
                "is added, `eval`, `train`, `finetune` and `adapt` refuse the store.",
                file=sys.stderr,
            )


def _derived(args: argparse.Namespace, show: "Callable[..., None]") -> "DerivedWorkloads":
    from tvm_cdmpp.cli.show import stderr_console
    from tvm_cdmpp.workloads import DerivedWorkloads

    def tell(label: str, done: int, total: int) -> None:
        console = stderr_console()
        if console.is_terminal:
            show(f"deriving tasks of {label}", done, total)
        else:  # where no bar is shown, minutes may pass here
            console.print(f"deriving tasks of {label} ({done + 1} of {total})", highlight=False)

    networks = args.networks.split(",")
    return DerivedWorkloads(networks, tell, inputs_of(args, networks))


def report_to_json(
    report: "ImportReport", ignored: Iterable[str], not_derived: Mapping[str, str]
) -> dict[str, Any]:
    """Return what an import did as plain data."""
    names = ("name", "device", "source", "licence", "network", "lines", "bins", "first", "unknown")
    return {
        "records": report.num_records,
        "content_hash": report.content_hash,
        "resumed": report.resumed,
        "lines": sum(log.lines for log in report.inputs),
        "bins": dict(_total(report.inputs)),
        "logs": [
            {**{name: getattr(log, name) for name in names}, "recovered": log.recovered}
            for log in report.inputs
        ],
        "skipped": report.skipped,
        "read_again": report.read_again,
        "ignored": list(ignored),
        "not_derived": dict(not_derived),
    }


@contextmanager
def _progress_bar() -> "Iterator[Callable[..., None]]":
    """Give what shows an activity and, where these change, what is done and the whole of it."""
    from rich import progress as rich_progress

    from tvm_cdmpp.cli.show import stderr_console

    columns = (
        rich_progress.BarColumn(20),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("{task.fields[log]}"),
    )
    console = stderr_console()
    hidden = not console.is_terminal
    with rich_progress.Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task("", log="", total=None)

        def show(doing: str, done: int | None = None, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total, log=doing)

        yield show


def _print_report(
    report: "ImportReport", ignored: Iterable[str], not_derived: Mapping[str, str], out: Path
) -> None:
    from rich.table import Table
    from rich.text import Text

    from tvm_cdmpp.cli.show import print_whole, stdout_console
    from tvm_cdmpp.data import BINS, UNKNOWN

    console = stdout_console()
    total = _total(report.inputs)
    shown = [name for name in BINS if total[name]]
    table = Table(box=None, pad_edge=False)
    table.add_column("log", overflow="fold")
    for name in ("lines", *shown):
        table.add_column(name, justify="right")
    for log in report.inputs:
        counts = [log.lines, *(log.bins.get(name, 0) for name in shown)]
        table.add_row(Text(log.name), *(f"{count:,}" for count in counts))
    if len(report.inputs) > 1:
        lines = sum(log.lines for log in report.inputs)
        table.add_section()
        table.add_row("all", *(f"{count:,}" for count in [lines, *map(total.get, shown)]))
    if report.inputs:
        print_whole(console, table)
    for name in BINS[1:]:
        _print_examples(console, name, report.inputs)
    for remark in _remarks(report, UNKNOWN in shown, ignored, not_derived):
        console.print(Text(remark))
    console.print(Text(f"\n{report.num_records:,} distinct programs in {out}"))


def _remarks(
    report: "ImportReport",
    has_unknown: bool,
    ignored: Iterable[str],
    not_derived: Mapping[str, str],
) -> Iterator[str]:
    if has_unknown:
        yield "DAGs come from --workloads FILE, or are derived from --networks N1,N2,..."
    for name, reason in not_derived.items():
        yield f"no tasks of {name}: {reason}"
    for name, reason in report.skipped.items():
        yield f"not read: {name} ({reason})"
    if names := list(ignored):
        yield f"not logs by their names: {', '.join(names)}"
    for name in report.read_again:
        yield f"in the store, read again for its unknown workloads: {name}"
    if report.resumed:
        earlier = "logs read, wholly or in part, by an import that did not end"
        yield f"{earlier}: {report.resumed}"


def _print_examples(console: "Console", name: str, logs: "Iterable[InputReport]") -> None:
    """Show the first lines of a bin."""
    from rich.text import Text

    examples = [f"{log.name}:{log.first[name]}" for log in logs if name in log.first]
    if not examples:
        return
    console.print(Text(f"\n{name}, first in each log:"))
    for example in examples[:_SHOWN_EXAMPLES]:
        cut = "..." if len(example) > _LONGEST_EXAMPLE else ""
        console.print(Text(f"  {example[:_LONGEST_EXAMPLE]}{cut}"))
    if len(examples) > _SHOWN_EXAMPLES:
        more = len(examples) - _SHOWN_EXAMPLES
        console.print(Text(f"  and in {more} more (--json lists all)"))


def _total(logs: "Iterable[InputReport]") -> Counter[str]:
    total: Counter[str] = Counter()
    for log in logs:
        total.update(log.bins)
    return total
