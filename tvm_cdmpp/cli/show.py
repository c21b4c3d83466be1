"""How searches are shown: lines per round, units, tables."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from tvm_cdmpp.report import latency as latency
from tvm_cdmpp.report import latency_unit

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment
    from rich.table import Table

    from tvm_cdmpp.bridge import LogReport
    from tvm_cdmpp.search import RoundReport, TimeSplit

_NAME_WIDTH = 60
_UNBOUNDED = 100_000


def stderr_console() -> "Console":
    """Return the console of all that is not the result; it goes quiet when nobody reads it."""
    from rich.console import Console

    class Progress(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    return _unbroken(Progress(stderr=True, highlight=False))


def stdout_console() -> "Console":
    """Return the console of the result."""
    from rich.console import Console

    return _unbroken(Console(highlight=False))


def _unbroken(console: "Console") -> "Console":
    """Let lines be as long as they are in a pipe or a file; rich would break them, and paths."""
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


@contextmanager
def show_rounds(
    console: "Console", trials: int, done: int = 0
) -> Iterator["Callable[[RoundReport, str], None]"]:
    """Show a bar over all trials, on a terminal, and above it a line per round.

    Yields
    ------
    show_round
        To be called with the report of a round, and what to put in front of it.
    """
    with show_progress(console, "trials", trials, done) as show_step:

        def show_round(report: "RoundReport", label: str) -> None:
            eta = f"about {minutes(report.eta_s)} left"
            show_step(label + describe_round(report), report.measured, eta)

        yield show_round


@contextmanager
def show_progress(
    console: "Console", title: str, total: int, done: int
) -> Iterator["Callable[[str, int, str], None]"]:
    """Show a bar, on a terminal, and above it a line per step.

    Yields
    ------
    show_step
        To be called with a step's line, by how much it goes on, and the time left in words.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total, completed=done, eta="")

        def show_step(line: str, advance: int, eta: str) -> None:
            progress.console.print(escape(line), soft_wrap=True)
            progress.advance(bar, advance)
            progress.update(bar, eta=eta)

        yield show_step


@contextmanager
def show_stages(console: "Console") -> Iterator["Callable[[str, int, int], None]"]:
    """Show a bar of the stage that is going on; lines where that is no terminal.

    Yields
    ------
    show_stage
        To be called with what is going on, how much of it is done, and how much there is; of one
        thing alone, nothing is counted.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("", total=1)

        def show_stage(what: str, done: int, total: int) -> None:
            line = escape(what if total == 1 else f"{what}: {done} of {total}")
            progress.update(bar, description=line, completed=done, total=total)
            if not console.is_terminal:
                console.print(line, soft_wrap=True)

        yield show_stage


@contextmanager
def show_bar(title: str, total: int) -> Iterator["Callable[[int], None]"]:
    """Show a bar on stderr, and nothing when it is done; a line where that is no terminal.

    Yields
    ------
    show
        To be called with how much is done.
    """
    from rich.progress import Progress

    console = stderr_console()
    if not console.is_terminal:
        console.print(f"{title}: {total}", soft_wrap=True, markup=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.update(bar, completed=done)


def describe_round(report: "RoundReport", eta_s: float | None = None) -> str:
    """Put a round into one line, with the time left: the round's own search's, or another."""
    failures = ", ".join(f"{number} {kind}" for kind, number in report.failures.items())
    return (
        f"{report.trials}/{report.trials_in_all}  task {report.task} {shorten(report.name)}  "
        f"best {latency(report.task_latency_s)}  "
        f"sum of tasks {latency(report.network_latency_s)}  "
        f"{describe_split(report.split)}  ETA {minutes(report.eta_s if eta_s is None else eta_s)}"
        + (f"  failed: {failures}" if failures else "")
    )


def describe_split(split: "TimeSplit") -> str:
    """Say where the time went."""
    return (
        f"search {split.search_s:.1f} predict {split.predict_s:.1f} update {split.update_s:.1f} "
        f"build {split.build_s:.1f} run {split.run_s:.1f} s"
    )


def describe_log(report: "LogReport") -> list[str]:
    """Say what a user may not expect in a log that is continued."""
    lines = [
        f"corrupt line {line.number} of the log was moved to {report.path}.bad: {line.reason}"
        for line in report.corrupt
    ]
    if report.other_workloads:
        number = sum(report.other_workloads.values())
        lines.append(f"{number} records in the log are other networks' and were left alone")
    return lines


def print_table(
    console: "Console",
    title: str,
    header: Sequence[str],
    rows: list[list[str]],
    words: Sequence[int] = (),
) -> None:
    """Print a table whose first column holds names and whose others but `words` hold numbers."""
    from rich.table import Table
    from rich.text import Text

    # Text, not markup: names of files and of tasks may hold square brackets
    heading = Text(title, style="table.title")
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if number in (0, *words) else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    print_whole(console, table)


def print_whole(console: "Console", table: "Table", *, fold: bool = False) -> None:
    """Print a table as wide as it is, without blanks at the ends of its lines.

    In a narrow terminal, rich would cut its cells; or fold those of columns that fold, as wanted.
    """
    unbounded = console.options.update(max_width=_UNBOUNDED)
    whole = 0 if fold else console.measure(table, options=unbounded).maximum
    width = max(console.width, whole)
    segments = console.render(table, unbounded.update(width=width))
    console.print(_Rendered(list(_without_trailing_blanks(segments))), crop=False)


def _without_trailing_blanks(segments: "Iterable[Segment]") -> "Iterator[Segment]":
    from rich.segment import Segment

    for line in Segment.split_lines(segments):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            text, style, control = line.pop()
            line.append(Segment(text.rstrip(), style, control))
        yield from (*line, Segment.line())


class _Rendered:
    """What has been laid out already, for a width that the console does not have."""

    def __init__(self, segments: "list[Segment]") -> None:
        self._segments = segments

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[Segment]":
        yield from self._segments


def latency_range(low_s: float, high_s: float, estimate_s: float) -> str:
    """Write what a latency lies between, in the unit in which `latency` writes its estimate."""
    unit, per_second = latency_unit(estimate_s)
    return f"{per_second * low_s:.4g} to {per_second * high_s:.4g} {unit}"


def percent_of_log(change: float) -> str:
    """Write what is added to a natural logarithm as a change of the quantity."""
    return f"{100 * math.expm1(change):+.0f}%"


def noise_floor(floors: Mapping[str, Any], bound: str) -> str:
    """Write the floor of the mean error, and that of its median, to two digits."""
    mean, median = floors["floor_mape"], floors["floor_median_ape"]
    return "not known" if mean is None else f"{bound}{100 * mean:.2g}% ({100 * median:.2g}%)"


def bound_of(basis: str) -> str:
    """Tell what a noise floor of a basis is a bound of: see `tvm_cdmpp.data.noise`."""
    return "" if basis == "between logs" else ">= "


def minutes(time_s: float) -> str:
    """Write a duration."""
    return f"{time_s:.0f} s" if time_s < 100 else f"{time_s / 60:.0f} min"


def shorten(name: str) -> str:
    """Cut a task's name in the middle: TVM's names differ at both ends."""
    half = _NAME_WIDTH // 2 - 1
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}..{name[-half:]}"
