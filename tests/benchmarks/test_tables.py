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


def search(model: str, seed: int, latencies_ms: list[float | None]) -> dict[str, object]:
    points = [
        {"trials": n, "elapsed_s": 10.0 * n, "network_latency_s": ms and ms / 1e3}
        for n, ms in enumerate(latencies_ms, start=1)
    ]
    return {"model": model, "seed": seed, "points": points}


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ([[None, 4, 3], [6, 5, 4]], ([30.0, 20.0], [30.0, 30.0])),
        ([[None, None, 9], [6, 5, 4]], ([None, 20.0], [30.0, 30.0])),
    ],
)
def test_time_to_match(
    ours: list[list[float | None]], expected: tuple[list[float | None], list[float]]
) -> None:
    theirs: list[list[float | None]] = [[None, 5, 3.5], [9, 8, 5]]
    searches = [
        search(model, seed, curve)
        for model, curves in (("cdmpp", ours), ("xgb-warm", theirs))
        for seed, curve in enumerate(curves)
    ]
    for model, times_s in zip(("cdmpp", "xgb-warm"), expected, strict=True):
        assert list(headline._times_to_match({"searches": searches}, model)) == times_s


def test_the_headline_says_what_the_files_say() -> None:
    result = json.loads((RESULTS / "resnet-18-untrained.json").read_text(encoding="utf-8"))
    means = [
        sum(s["remeasured_latency_s"] for s in result["searches"] if s["model"] == model) / 2
        for model in ("cdmpp", "xgb-warm")
    ]
    assert len(result["searches"]) == 2 * len(result["settings"]["models"])
    row = README.read_text(encoding="utf-8").split(headline.BEGIN)[1].splitlines()[3]
    ours, theirs = (f"{1e3 * mean:.3g} ms" for mean in means)
    assert row.endswith(f"| {ours} | {theirs} | {means[0] / means[1] - 1:+.0%} |")


def test_nothing_is_made_up_where_a_figure_is_missing() -> None:
    assert headline._in_two([None, 2.0], 1, "s") == ("-", "2 s", "")
    assert headline._middle([1.0, None]) is None
