"""A search as one HTML page that needs nothing else: no network, no script, no other file."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tvm_cdmpp.files import write_atomically
from tvm_cdmpp.report.svg import NUM_MARKS, Axis, line_chart, mark, scatter_chart
from tvm_cdmpp.report.units import counted, latency, latency_unit, ranges

if TYPE_CHECKING:
    from tvm_cdmpp.search import SearchReview, TaskReview

_MOST_POINTS = 300
"""Of each task in the scatter; the rest would only make the page larger, and are counted."""
_MOST_PROBLEMS = 10
_LOG_FROM = 10.0
"""Largest over smallest value from which a logarithmic axis has ticks enough."""

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --page: #ffffff;
  --grid: #d8dee4; --line: #0072b2; --g0: #0072b2; --g1: #d55e00; --g2: #009e73; --g3: #cc79a7;
  --g4: #b58900; --g5: #444444; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4af; --page: #0f1419;
  --grid: #30363d; --line: #56b4e9; --g0: #56b4e9; --g1: #ff9d5c; --g2: #3fd0a4; --g3: #e5a8cc;
  --g4: #f0e442; --g5: #c8c8c8; } }
@media print { :root { --text: #000; --soft: #333; --page: #fff; --grid: #ccc; --line: #0072b2;
  --g0: #0072b2; --g1: #d55e00; --g2: #009e73; --g3: #cc79a7; --g4: #b58900; --g5: #444; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { max-width: 58rem; } p.soft { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85rem; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid var(--grid); }
th { vertical-align: bottom; } td { white-space: nowrap; }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td:first-child, td.words { white-space: normal; } td.words { min-width: 8rem; }
svg { width: 100%; max-width: 44rem; height: auto; display: block; margin-bottom: 1rem; }
svg text { font-size: 11px; fill: var(--soft); } .left { text-anchor: end; }
.below { text-anchor: middle; } .grid { stroke: var(--grid); }
.line { fill: none; stroke: var(--line); stroke-width: 2; } .begin { fill: var(--line); }
.diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
.dots { fill: currentColor; fill-opacity: 0.6; } .hollow { fill: none; stroke: currentColor; }
.g0 { color: var(--g0); } .g1 { color: var(--g1); } .g2 { color: var(--g2); }
.g3 { color: var(--g3); } .g4 { color: var(--g4); } .g5 { color: var(--g5); }
svg.mark { display: inline; width: 1em; margin: 0 0.4em 0 0; vertical-align: -0.1em; }
.mark .dots { fill-opacity: 1; }
@media screen and (max-width: 40rem) { svg text { font-size: 16px; }
  th, td { padding: 0.25rem 0.3rem; }
  th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); } }
@media print { body { max-width: none; margin: 0; } .scroll { overflow: visible; }
  th, td { padding: 0.2rem 0.4rem; font-size: 0.7rem; } h2 { break-after: avoid; }
  svg, tr, p { break-inside: avoid; } }
"""


def write_search_page(review: "SearchReview", path: Path) -> None:
    """Write the page of a search.

    Parameters
    ----------
    review
        What to show.
    path
        The file; replaced in one step if it exists.
    """
    write_atomically(path, search_page(review).encode(errors="replace"))


def search_page(review: "SearchReview") -> str:
    """Return the page that `write_search_page` writes."""
    title = f"Search in {review.log.name}"
    trials = sum(task.trials for task in review.tasks)
    failed = sum(review.failures.values())
    spent_s = sum(task.spent_s for task in review.tasks)
    lead = (
        f"{counted(len(review.tasks), 'task')} on {review.device}, "
        f"{counted(trials, 'program')} measured in {_duration(spent_s)} of building and running, "
        f"{failed} of them failed. "
        f"The best programs add up to {latency(review.latency_s)}, each task counted once."
    )
    sections = [
        ("Latency against trials", _progress(review)),
        ("Tasks", _tasks(review)),
        ("Predicted against measured", _scatter(review)),
        ("Failures", _failures(review)),
        ("Where more trials would pay", _advice(review.tasks)),
    ]
    body = "".join(f"<section><h2>{head}</h2>{content}</section>" for head, content in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>{body}</body></html>\n"
    )


def _progress(review: "SearchReview") -> str:
    points = review.progress
    if not len(points):
        return _note("No program ran.")
    unit, per_second = latency_unit(float(max(points[:, 1])))
    shown = [(float(n), per_second * float(latency_s)) for n, latency_s in points]
    values = [value for _, value in shown]
    x = Axis("programs measured", 0.0, shown[-1][0], whole=True)
    low, high = 0.95 * min(values), 1.05 * max(values)
    y = Axis(f"sum of best latencies ({unit})", low, high, log=high > _LOG_FROM * low)
    chart = line_chart("latency against trials", x, y, shown)
    return chart + _note(
        f"From program {shown[0][0]:.0f} on, every task that ever ran has a program."
    )


def _tasks(review: "SearchReview") -> str:
    header = (
        "task", "trials", "failed", "time", "best", "held down by", "roofline", "set by",
        "best / roofline",
    )  # fmt: skip
    rows = [
        [
            task.name,
            str(task.trials),
            str(task.failed),
            f"{task.spent_s:.0f} s",
            latency(task.best_s),
            task.bound,
            latency(task.roofline_s),
            task.roofline_bound,
            "-" if task.best_s is None else f"{task.best_s / task.roofline_s:.1f}",
        ]
        for task in sorted(review.tasks, key=lambda task: -(task.best_s or 0.0))
    ]
    note = (
        "`explain --task` takes the number of a task. "
        "Time is that of building and running. What holds a program down is the word of an "
        "analytic estimate. The roofline is what the device's nominal figures allow, by compute or "
        f"by memory ({review.memory}), with inputs and outputs moved once. Where caches "
        "hold the data, or the device is faster than its nominal figures, as a CPU above its base "
        "clock is, a program may take less."
    )
    return _table(header, rows) + _note(note)


def _scatter(review: "SearchReview") -> str:
    tasks = [task for task in review.tasks if len(task.measured_s)]
    if not tasks:
        return _note("No program ran.")
    unit, per_second = latency_unit(max(float(task.measured_s.max()) for task in tasks))
    groups = []
    for task in tasks:
        chosen = np.unique(np.linspace(0, len(task.measured_s) - 1, _MOST_POINTS).astype(int))
        seconds = zip(task.measured_s[chosen], task.predicted_s[chosen], strict=True)
        points = [(per_second * float(a), per_second * float(b)) for a, b in seconds]
        groups.append((task.name, points))
    values = [value for _, points in groups for point in points for value in point]
    low, high = 0.8 * min(values), 1.25 * max(values)
    x, y = (Axis(f"{what} ({unit})", low, high, log=True) for what in ("measured", "predicted"))
    chart = scatter_chart("predicted against measured", x, y, groups)
    order = sorted(range(len(tasks)), key=lambda number: tasks[number].concordance or 0.0)
    rows = [
        [
            task.name,
            f"{np.exp(np.median(np.log(task.predicted_s / task.measured_s))):.2f}",
            f"{100 * np.median(abs(task.predicted_s / task.measured_s - 1)):.0f}%",
            "-" if task.concordance is None else f"{100 * task.concordance:.0f}%",
        ]
        for task in (tasks[number] for number in order)
    ]
    note = (
        f"The weights are {review.weights}, as they come, not as a search trained them on"
        f"{', at the measured level of the device' if review.calibrated else ''}. A level "
        "that is off by the same factor for all programs of a task does not change what a search "
        "measures; a wrong order does. The tasks whose order the model knows least come first."
    )
    header = ("task", "predicted / measured, median", "median error", "pairs in the right order")
    table = _table(header, rows, marks=[mark(number) for number in order])
    remarks = "".join(_note(f"{remark}.") for remark in review.remarks)
    return chart + _left_out(tasks) + table + _note(note) + remarks


def _left_out(tasks: "Sequence[TaskReview]") -> str:
    """Return what the scatter does not show, if anything."""
    ran = [len(task.measured_s) for task in tasks]
    drawn = sum(min(number, _MOST_POINTS) for number in ran)
    content = ""
    if drawn < sum(ran):
        content += _note(
            f"{drawn} of {sum(ran)} programs drawn: of each task {_MOST_POINTS} at most, evenly "
            "over its trials. The table is of all."
        )
    if len(tasks) > NUM_MARKS:
        content += _note(f"Marks repeat after {NUM_MARKS} tasks; those of the chart have tooltips.")
    return content


def _failures(review: "SearchReview") -> str:
    rows = [[reason, str(number)] for reason, number in review.failures.items()]
    content = _table(("reason", "programs"), rows) if rows else _note("No program failed.")
    if review.problems:
        some = sorted(review.problems.items())[:_MOST_PROBLEMS]
        lines = counted(len(review.problems), "line")
        content += _note(f"{lines} of the log could not be used; the first:")
        content += _table(("line", "why"), [[str(line), why] for line, why in some], words=(1,))
    return content


def _advice(tasks: "Sequence[TaskReview]") -> str:
    told = [task for task in tasks if not task.has_too_few_trials]
    rows = [
        [task.name, latency(task.late_gain_s), task.advice, task.next_to_roofline]
        for task in sorted(told, key=lambda task: -task.late_gain_s)
    ]
    header = ("task", "gained by its last third of trials", "advice", "next to its roofline")
    content = _table(header, rows, words=(2, 3)) if rows else ""
    # Of a small search these are most tasks, so they go by their numbers.
    few = [number for number, task in enumerate(tasks) if task.has_too_few_trials]
    if few:
        content += _note(f"Task{'s' * (len(few) > 1)} {ranges(few)}: {tasks[few[0]].advice}.")
    return content


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[int] = (),
    marks: Sequence[str] = (),
) -> str:
    """Return a table; marks are HTML that its rows begin with."""

    def cells(tag: str, row: Sequence[str], before: str = "") -> str:
        return "".join(
            f"<{tag}{' class=words' if place in words else ''}>{'' if place else before}"
            f"{html.escape(cell)}</{tag}>"
            for place, cell in enumerate(row)
        )

    marked = zip(rows, marks or [""] * len(rows), strict=True)
    body = "".join(f"<tr>{cells('td', row, before)}</tr>" for row, before in marked)
    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _note(text: str) -> str:
    """Return a paragraph; what is between backticks is code."""
    content = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))
    return f'<p class="soft">{content}</p>'


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
