"""The page of a search: whole, well-formed, and dependent on nothing outside."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvm_cdmpp.report import search_page
from tvm_cdmpp.report.svg import NUM_MARKS, Axis
from tvm_cdmpp.search.review import SearchReview, TaskReview

_VOID = {"meta", "!doctype"}


class Checker(HTMLParser):
    """Every tag that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def review(**changes: Any) -> SearchReview:
    task = TaskReview(
        name="conv2d <1x7>",
        trials=5,
        failed=1,
        spent_s=120.0,
        best_s=2e-3,
        bound="memory",
        roofline_s=1e-3,
        roofline_bound="compute",
        late_gain_s=1e-3,
        measured_s=np.array([4e-3, 3e-3, 2e-3, 2.5e-3]),
        predicted_s=np.array([5e-3, 2e-3, 2e-3, 3e-3]),
        concordance=0.8,
    )
    values: dict[str, Any] = {
        "log": Path("a & b.json"), "device": "t4", "memory": "main memory at 320 GB/s, assumed",
        "weights": "shipped", "calibrated": False, "remarks": ("not `calibrated`",),
        "tasks": (task,),
        "progress": np.array([[1, 4e-3], [2, 3e-3], [3, 2e-3]]),
        "failures": {"build timeout": 1}, "problems": {7: "half <a> line"},
    }  # fmt: skip
    return SearchReview(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"progress": np.zeros((0, 2)), "tasks": (), "failures": {}, "problems": {}},
        {"progress": np.array([[3.0, 2e-3]])},
    ],
)
def test_the_page_is_whole_and_needs_nothing_else(changes: Any) -> None:
    page = search_page(review(**changes))
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.seen
    assert not re.search(r"(src|href)=|url\(|https?:|nan|inf[^o]", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_page_tells_what_was_found() -> None:
    page = search_page(review())
    for text in (
        "a &amp; b.json", "conv2d &lt;1x7&gt;", "build timeout", "half &lt;a&gt; line", "80%",
        "2 ms", "(main memory at 320 GB/s, assumed)", "not <code>calibrated</code>.",
    ):  # fmt: skip
        assert text in page
    assert len(marks(page)[0]) == 4


def test_one_of_a_kind_is_counted_as_one() -> None:
    page = search_page(review(progress=np.array([[1, 2e-3]])))
    assert "1 task on t4, 5 programs measured in 2.0 minutes" in page
    assert "1 line of the log could not be used" in page
    assert "From program 1 on" in page
    assert page.count('<circle class="begin"') == 1


def test_tasks_of_few_trials_are_told_in_one_sentence() -> None:
    tasks = many_tasks(5)
    for trials, names, numbers in (
        ((5, 64, 5, 15, 16), ["task 1", "task 4"], "Tasks 0, 2-3"),
        ((64, 64, 5, 64, 64), ["task 0", "task 1", "task 3", "task 4"], "Task 2"),
        ((5, 5, 5, 5, 5), [], "Tasks 0-4"),
        ((64, 64, 64, 64, 64), [f"task {n}" for n in range(5)], ""),
    ):
        changed = tuple(replace(t, trials=n) for t, n in zip(tasks, trials, strict=True))
        advice = search_page(review(tasks=changed)).split("Where more trials would pay")[1]
        assert re.findall(r"<td>(task \d)</td>", advice) == names
        assert ("<table>" in advice) == bool(names)
        said = f"{numbers}: fewer than 16 trials, too few to tell.</p>"
        assert (said in advice) == bool(numbers)
        assert advice.count("fewer than 16") == bool(numbers)
    failed = replace(tasks[0], best_s=None)
    assert "no program ran: see the failures</td>" in search_page(review(tasks=(failed,)))


def test_the_first_lines_that_could_not_be_used_are_shown() -> None:
    page = search_page(review(problems={line: f"line {line}" for line in range(20, 0, -1)}))
    assert "20 lines of the log could not be used" in page
    assert re.findall(r"<td class=words>line (\d+)</td>", page) == [str(n) for n in range(1, 11)]


def marks(page: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return class and shape of each point of the scatter, and of each mark in the table."""
    chart, table = page.split("Predicted against measured")[1].split("<table>", 1)
    points = [
        (look, shape)
        for look, group in re.findall(r'<g class="(.*?)">(.*?)</g>', chart)
        for shape in re.findall(r'd="M[\d.]+,[\d.]+(.*?)"', group)
    ]
    return points, re.findall(r'<td><svg class="mark".*?class="(.*?)" d="M0,0(.*?)"/>', table)


def many_tasks(number: int, programs: int = 1) -> tuple[TaskReview, ...]:
    (task,) = review().tasks
    task = replace(
        task,
        measured_s=np.linspace(1e-3, 2e-3, programs),
        predicted_s=np.linspace(2e-3, 1e-3, programs),
    )
    return tuple(
        replace(task, name=f"task {n}", concordance=((5 * n) % number) / number)
        for n in range(number)
    )


def test_every_task_of_the_scatter_has_a_mark_of_its_own() -> None:
    tasks = many_tasks(NUM_MARKS)
    points, legend = marks(page := search_page(review(tasks=tasks)))
    assert len(set(points)) == len(legend) == NUM_MARKS
    assert "Marks repeat" not in page
    worst_first = sorted(range(NUM_MARKS), key=lambda n: tasks[n].concordance or 0.0)
    assert legend == [points[n] for n in worst_first]
    for look in {look for point, _ in points for look in point.split()}:
        assert f".{look} {{" in page
    assert f"Marks repeat after {NUM_MARKS} tasks" in search_page(
        review(tasks=many_tasks(NUM_MARKS + 1))
    )


def test_points_that_are_left_out_of_the_scatter_are_counted() -> None:
    page = search_page(review(tasks=(*many_tasks(2, programs=1000), *review().tasks)))
    assert len(marks(page)[0]) == 604
    assert "604 of 2004 programs drawn" in page
    assert "programs drawn" not in search_page(review())


def test_latencies_have_the_units_of_the_command_line() -> None:
    assert "sum of best latencies (ms)" in search_page(review())
    (task,) = review().tasks
    short = replace(
        task, best_s=8.21e-5, roofline_s=1.046e-5, late_gain_s=0.0,
        measured_s=task.measured_s / 100, predicted_s=task.predicted_s / 100,
    )  # fmt: skip
    page = search_page(review(tasks=(short,), progress=np.array([[1, 9e-5], [2, 8.21e-5]])))
    for text in ("82.1 us", "10.46 us", "sum of best latencies (us)", "measured (us)"):
        assert text in page
    assert " ms" not in page and "(ms)" not in page


def test_axes_label_round_values_within_their_range() -> None:
    for axis in (
        Axis("x", 0.0, 48.0), Axis("x", 0.21, 0.34), Axis("x", 0.0, 1.0, whole=True),
        Axis("x", 3e-5, 2.0, log=True), Axis("x", 0.32, 0.66, log=True),
    ):  # fmt: skip
        ticks = axis.ticks()
        assert 2 <= len(ticks) <= 12
        assert all(axis.low <= tick <= axis.high for tick in ticks)
        assert all(0 <= axis.place(tick) <= 1 for tick in ticks)
        assert not axis.whole or all(tick == round(tick) for tick in ticks)
    assert Axis("x", 1.0, 1.0).place(1.0) == 0.5
