"""How searches are shown: whole tables, the time left."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from tvm_cdmpp.cli import show
from tvm_cdmpp.search.reports import RoundReport, TimeSplit

ROUND = RoundReport(
    task=0, name="matmul", task_latency_s=1e-3, network_latency_s=None, measured=2, failures={},
    trials=4, trials_in_all=8, split=TimeSplit(search_s=1.0), elapsed_s=1.0, eta_s=7.0,
)  # fmt: skip


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_are_whole(terminal: bool) -> None:
    """A number in a pipe, or in a narrow window, must not end in an ellipsis."""
    out = io.StringIO()
    console = Console(file=out, width=40, force_terminal=terminal, color_system=None)
    header = ["model", *(f"after {'very ' * n}many trials" for n in range(6))]
    rows = [["x" * 150, *("123456789012 [ms]" for _ in header[1:])]]
    show.print_table(console, "title of[red]a[/log]", header, rows)
    title, head, row = out.getvalue().splitlines()[1:]
    assert "title of[red]a[/log]" in title
    assert all(name in head for name in header)
    assert row.split("  ")[0] == "x" * 150
    assert row.count("123456789012 [ms]") == 6
    assert all(line == line.rstrip() for line in (title, head, row))


def test_columns_that_fold_keep_to_a_terminal() -> None:
    out = io.StringIO()
    table = Table(box=None, show_header=False)
    table.add_column(overflow="fold")
    table.add_row("a/long/path " * 9)
    console = Console(file=out, width=40, force_terminal=True, color_system=None)
    show.print_whole(console, table, fold=True)
    assert max(map(len, out.getvalue().splitlines())) <= 40


def test_lines_in_a_pipe_are_as_long_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a/long/path" * 40
    show.stdout_console().print(f"found {path}")
    show.stderr_console().print(f"found {path}")
    assert capsys.readouterr() == (f"found {path}\n", f"found {path}\n")


def test_a_round_tells_its_own_time_left_or_that_of_all() -> None:
    assert show.describe_round(ROUND).endswith("ETA 7 s")
    assert show.describe_round(ROUND, 90.0).endswith("ETA 90 s")


@given(st.floats(min_value=1e-7, max_value=1e4))
def test_latencies_have_a_unit_that_fits(latency_s: float) -> None:
    number, unit = show.latency(latency_s).split()
    assert float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit] == pytest.approx(
        latency_s, rel=1e-3
    )
    assert 0.1 <= float(number) <= 10_000
    assert show.latency_range(latency_s, latency_s, latency_s).split()[-1] == unit


def test_a_range_has_one_unit() -> None:
    assert show.latency_range(2.5e-6, 2.5e-3, 1e-3) == "0.0025 to 2.5 ms"
    assert show.latency_range(1.858e-5, 1.48e-4, 5.244e-5) == "18.58 to 148 us"
    assert show.latency(None) == "-"


@pytest.mark.parametrize("terminal", [False, True])
def test_stages_are_lines_or_a_bar(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None)
    with show.show_stages(console) as show_stage:
        show_stage("waking threads", 0, 1)
        show_stage("products", 4, 8)
        if terminal:  # it is painted some times a second
            console.print("-")
    assert (out.getvalue() == "waking threads\nproducts: 4 of 8\n") == (not terminal)
    assert "products: 4 of 8" in out.getvalue()
