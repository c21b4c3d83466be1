"""Make the README's table of results from the files in `benchmarks/results`.

`python benchmarks/readme_table.py` rewrites the block between the two markers in README.md. A test
fails when the block is not what this script makes.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def main() -> None:
    """Rewrite the README's block."""
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text(encoding="utf-8")), encoding="utf-8")


def with_results(readme: str) -> str:
    """Return the README's text with its results made anew."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    sections = [_section(file) for file in files]
    return before + "\n\n".join([BEGIN, *sections, END]) + after


def _section(file: Path) -> str:
    result = json.loads(file.read_text(encoding="utf-8"))
    settings, machine = result["settings"], result["machine"]
    trials = settings["trials"]
    lines = [
        f"**{result['network']}, {len(result['tasks'])} tasks with the most work, {trials} trials, "
        f"{settings['seeds']} seeds, untrained predictor** "
        f"([data](benchmarks/results/{file.name}), "
        f"[plot](benchmarks/results/{file.with_suffix('.png').name})). Median over seeds "
        "(smallest to largest); network latency is the weighted sum over the tasks.",
        "",
        f"| cost model | after {trials // 2} trials | after {trials} | winners, timed together "
        "| search time | of it scoring and learning | programs that failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in settings["models"]:
        searches = [s for s in result["searches"] if s["model"] == model]
        splits = [s["split"] for s in searches]
        total_s = [sum(split.values()) for split in splits]
        learning_s = sum(split["predict_s"] + split["update_s"] for split in splits)
        cells = [
            model,
            _spread((_latency_at(s, trials // 2) for s in searches), 1e3, "ms"),
            _spread((_latency_at(s, trials) for s in searches), 1e3, "ms"),
            _spread((s["remeasured_latency_s"] for s in searches), 1e3, "ms"),
            _spread(total_s, 1 / 60, "min"),
            f"{learning_s / sum(total_s):.0%}",
            str(sum(sum(s["failures"].values()) for s in searches)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{result['date'][:10]}, commit {result['commit']}, `{result['command']}` on "
        f"{machine['physical_cores']} cores of {machine['cpu'] or 'an unnamed CPU'}, target "
        f"`{result['target']}`, TVM {machine['tvm']}.",
    ]
    return "\n".join(lines)


def _latency_at(search: dict[str, Any], trials: int) -> float | None:
    known = [p["network_latency_s"] for p in search["points"] if p["trials"] <= trials]
    return known[-1] if known else None


def _spread(values: Iterable[float | None], scale: float, unit: str) -> str:
    known = [value * scale for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.median(known):.3g} {unit} ({min(known):.3g} to {max(known):.3g})"


if __name__ == "__main__":
    main()
