"""Make the README's table of results from the files in `benchmarks/results`.

`python benchmarks/readme_table.py` rewrites the block between the two markers in README.md. A test
fails when the block is not what this script makes.
"""

import json
import statistics
from collections import Counter
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
    sections = [_SECTIONS.get(file.stem, _comparison)(file) for file in files]
    return before + "\n\n".join([BEGIN, *sections, END]) + after


def _comparison(file: Path) -> str:
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


def _agreement(file: Path) -> str:
    result = json.loads(file.read_text(encoding="utf-8"))
    total, machine = result["total"], result["machine"]
    lines = [
        f"**Compact ASTs without lowering against those of the lowered programs, {total['states']} "
        f"states of {total['tasks']} tasks** ([data](benchmarks/results/{file.name})). States are "
        "drawn by Ansor's sketch policy; they agree when every field of every leaf does.",
        "",
        "| target | tasks | states | leaves | states that agree | fields that differ, in states |",
        "|---|---|---|---|---|---|",
    ]
    devices: dict[str, list[dict[str, Any]]] = {}
    for task in result["tasks"]:
        devices.setdefault(task["task"].split("/")[1], []).append(task)
    for device, tasks in devices.items():
        causes: Counter[str] = Counter()
        for task in tasks:
            causes.update(task.get("causes", {}))
        sums = [sum(t.get(key, 0) for t in tasks) for key in ("states", "leaves", "agreeing")]
        differing = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        cells = [device, len(tasks), *sums, differing or "none"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        f"{total.get('refused', 0)} states are refused by both, since TVM cannot lower them; "
        f"{total.get('opaque_reads', 0)} reads of the tasks have an index that is data or not "
        f"affine. Ansor refuses {', '.join(result['refused_by_ansor'])}.",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, `{result['command']}`, "
        f"TVM {machine['tvm']}.",
    ]
    return "\n".join(lines)


_SECTIONS = {"ast-equality": _agreement}
"""By the name of the file; the others are comparisons of searches."""


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
