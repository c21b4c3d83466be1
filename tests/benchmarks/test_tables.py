"""The published tables are what the script makes of the result files, and say what these say."""

import json
import re
import statistics

import pytest

from benchmarks import headline
from benchmarks.tables import README, RESULTS, RESULTS_PAGE, results_page


def test_published_tables_are_those_of_the_result_files() -> None:
    page = RESULTS_PAGE.read_text(encoding="utf-8")
    assert page == results_page()
    readme = README.read_text(encoding="utf-8")
    assert readme == headline.with_headline(readme)
    for result in RESULTS.glob("*.json"):
        assert f"](results/{result.name})" in page
    for text, base in ((page, RESULTS_PAGE.parent), (readme, README.parent)):
        links = re.findall(r"\]\(([\w./-]*results/[^)]+)\)", text)
        assert links
        assert all((base / link).exists() for link in links)


def search(arm: str, task: str, latencies_ms: list[float]) -> dict[str, object]:
    steps = [
        {"elapsed_s": 10.0 * n, "latency_s": ms / 1e3} for n, ms in enumerate(latencies_ms, start=1)
    ]
    return {"arm": arm, "task": task, "seed": 0, "steps": steps, "split_s": {"a": 70.0, "b": 5.0}}


@pytest.mark.parametrize(
    ("ours", "expected_s"),
    [
        ([[4, 3], [6, 5, 4], [9, 2]], 20.0),
        # One that never gets there stands with all of its time.
        ([[4], [6, 5, 4.5], [9]], 75.0),
    ],
)
def test_seconds_to_the_goal(ours: list[list[float]], expected_s: float) -> None:
    theirs: list[list[float]] = [[5, 3.5], [9, 8, 5], [2]]
    searches = [
        search(arm, str(task), curve)
        for arm, curves in (("cdmpp", ours), ("xgb-warm", theirs))
        for task, curve in enumerate(curves)
    ]
    result = {"summary": {"reference": "xgb-warm"}, "searches": searches}
    assert headline._seconds(result, "cdmpp") == expected_s
    assert headline._seconds(result, "xgb-warm") == 20.0


def test_the_docs_say_what_the_files_say_of_networks() -> None:
    """Each figure of the table in docs/predict.md is that of the result file, rounded."""
    text = (RESULTS.parents[1] / "docs" / "predict.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if re.match(r"\| .* \| .* % ", line)]
    files = [f"{batch}-{of}" for of in ("epyc5", "avx512") for batch in (1, 4)]
    rows = [
        json.loads((RESULTS / f"network-latency-batch-{name}.json").read_bytes())["rows"]
        for name in files
    ]
    known = {
        "replayed": "measured in the network", "from_alone": "by themselves",
        "alone": "added up", "predicted": "nothing measured",
        "calibrated": "device calibrate", "adapted": "200 records", "flops": "FLOPs",
        "scaled": "Habitat", "rooflines": "rooflines",
    }  # fmt: skip
    for name, words in known.items():
        (line,) = (line for line in table if words in line)
        for cell, found in zip(line.split("|")[2:-1], rows, strict=True):
            assert (cell.strip() == "-") is any(f"{name}_s" not in row for row in found)
            if cell.strip() == "-":
                continue
            figure, *largest = re.findall(r"[\d.]+", cell)
            errors = [100 * abs(row[f"{name}_s"] / row["measured_s"] - 1) for row in found]
            _agrees(figure, statistics.fmean(errors))
            if largest:
                _agrees(largest[0], max(errors))
    for kind in ("own", "log"):
        (line,) = (line for line in table if line.startswith("| the same") and kind in line)
        for cell, found in zip(line.split("|")[2:-1], rows, strict=True):
            _agrees(
                re.findall(r"[\d.]+", cell)[0],
                statistics.fmean(
                    100 * abs(row["adapted_s"] / row["measured_s"] - 1)
                    for row in found
                    if (row["schedules"] == "log") is (kind == "log")
                ),
            )


def _agrees(figure: str, value: float) -> None:
    digits = len(figure.partition(".")[2])
    assert abs(float(figure) - value) <= 0.5 * 10**-digits + 1e-9, (figure, value)


def test_the_headline_says_what_the_files_say() -> None:
    result = json.loads((RESULTS / "search.json").read_text(encoding="utf-8"))
    found = result["summary"]["arms"]["cdmpp"]["sooner"]["seconds"]
    rows = README.read_text(encoding="utf-8").split(headline.BEGIN)[1].splitlines()[3:]
    for number, name in enumerate(("resnet-50", "bert-base")):
        network = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        found_s = {each["model"]: each["remeasured_latency_s"] for each in network["searches"]}
        assert set(found_s) == {"cdmpp-evaluation:evolve", "xgb-warm", "xgb"}
        told = rows[2 * number].split("|")
        assert told[1].strip().startswith(name)
        assert told[2].strip() == f"{1e3 * found_s['cdmpp-evaluation:evolve']:.1f} ms"
        assert told[3].strip() in {f"{1e3 * found_s[xgb]:.1f} ms" for xgb in ("xgb-warm", "xgb")}
    row = rows[4]
    assert row.endswith(f"| {found['mean']:.1f} x ({found['low']:.1f} to {found['high']:.1f}) |")
    assert {each["arm"] for each in result["searches"]} >= {"cdmpp", "xgb-warm"}
