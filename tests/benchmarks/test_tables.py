"""The published tables are what the script makes of the result files, and say what these say."""

import json
import re

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


def test_the_headline_says_what_the_files_say() -> None:
    result = json.loads((RESULTS / "search.json").read_text(encoding="utf-8"))
    found = result["summary"]["arms"]["cdmpp-long"]["sooner"]["seconds"]
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
    assert {each["arm"] for each in result["searches"]} >= {"cdmpp", "cdmpp-long", "xgb-warm"}
