"""Make the tables of results from the files in `benchmarks/results`.

`python -m benchmarks.tables` writes `benchmarks/RESULTS.md`, with all results, and the README's
block between two markers: the headline table and the picture of a search. A test fails when they
are not what this script makes.
"""

import itertools
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.accuracy_tables import accuracy_sections
from benchmarks.adaptation_tables import adaptation_section, target_section
from benchmarks.choice_tables import choice_section, onboarding_section
from benchmarks.headline import with_headline
from benchmarks.latency_tables import (
    full_caches_section,
    latency_section,
    rows_first_section,
    worker_cores_section,
)
from benchmarks.markdown import hardware, origin, over_seeds, table_head, table_row
from benchmarks.predictor_tables import (
    ablation_section,
    edits_section,
    errors_section,
    faithfulness_section,
    intervals_section,
    speed_section,
    study_section,
)
from benchmarks.recorded_tables import recorded_section
from benchmarks.search_tables import evolution_section, guard_section, search_section

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESULTS_PAGE = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"

_IN_THE_STORE = ("kept", "failed measurement", "duplicate")
_UNKNOWN = "unknown workload"


def main() -> None:
    """Write the page of results and the README's block."""
    RESULTS_PAGE.write_text(results_page(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_headline(readme), encoding="utf-8")


def results_page() -> str:
    """Return the page with all results."""
    sections = [_section(file) for file in sorted(RESULTS.glob("*.json"))]
    sections += accuracy_sections(RESULTS / "accuracy")
    sections.append("\n".join(ablation_section(RESULTS / "predictor-ablation")))
    sections.append("\n".join(adaptation_section(RESULTS / "adaptation")))
    sections += ["\n".join(onboarding_section(it)) for it in sorted(RESULTS.glob("onboarding*"))]
    head = (
        "# Results\n\nMade by `python -m benchmarks.tables` from the files in `results/`; below "
        "each table, where, when and by which command it was measured."
    )
    return "\n\n".join([head, *filter(None, sections)]) + "\n"


def _section(file: Path) -> str:
    result = json.loads(file.read_text(encoding="utf-8"))
    kind = file.stem.split("-")[0]
    # Files of other names are comparisons, which are called after their network.
    makers = {
        "ablation": _ablation,
        "autotune": study_section,
        "device": choice_section,
        "target": target_section,
        "throughput": _throughput,
        "ast": _ast_equality,
        "edits": edits_section,
        "errors": errors_section,
        "faithfulness": faithfulness_section,
        "network": intervals_section if "kinds" in result else latency_section,
        "install": _install_size,
        "training": speed_section,
        "search": search_section,
        "evolution": evolution_section,
        "full": full_caches_section,
        "recorded": recorded_section,
        "rows": rows_first_section,
        "worker": worker_cores_section,
        "guard": guard_section,
        "data": _data_import if "import" in result else _data_quality,
    }
    make = makers.get(kind, _comparison)
    return "\n".join(make(file, result))


def _install_size(file: Path, result: dict[str, Any]) -> Iterator[str]:
    yield (
        f'**What `pip install -c constraints.txt -e ".[{result["extra"]}]"` takes** '
        f"([data](results/{file.name})). PyTorch is the build for CPUs; where pip chooses one for "
        "GPUs, it adds gigabytes."
    )
    yield ""
    yield from table_head("commit", "download", "on the disk", "packages", "largest packages")
    for size in (result[when] for when in ("before", "after") if when in result):
        largest = itertools.islice(size["largest_bytes"].items(), 5)
        yield table_row(
            size["commit"],
            f"{size['download_bytes'] / 1e6:,.0f} MB",
            f"{size['disk_bytes'] / 1e6:,.0f} MB",
            str(size["packages"]),
            ", ".join(f"{name.split()[0]} {n / 1e6:.0f}" for name, n in largest),
        )
    yield ""
    yield origin(result)


def _comparison(file: Path, result: dict[str, Any]) -> Iterator[str]:
    settings, machine = result["settings"], result["machine"]
    trials, untrained = settings["trials"], file.stem.endswith("-untrained")
    yield (
        f"**{result['network']}, {len(result['tasks'])} tasks with the most work, {trials} trials, "
        f"{settings['seeds']} seeds{', untrained predictor' if untrained else ''}** "
        f"([data](results/{file.name}), "
        f"[plot](results/{file.with_suffix('.png').name})). "
        f"{over_seeds(settings['seeds'], 'Mean', 'Median').capitalize()} (smallest to largest); "
        f"network latency is the weighted sum over the tasks.{_threads(result)}"
    )
    yield ""
    yield from table_head(
        "cost model",
        f"after {trials // 2} trials",
        f"after {trials}",
        "winners, timed together",
        "search time",
        "of it scoring and learning",
        "programs that failed",
        "failed passes of winners",
    )
    for model in settings["models"]:
        searches = [s for s in result["searches"] if s["model"] == model]
        splits = [s["split"] for s in searches]
        total_s = [sum(split.values()) for split in splits]
        learning_s = sum(split["predict_s"] + split["update_s"] for split in splits)
        yield table_row(
            model,
            _spread((_latency_at(s, trials // 2) for s in searches), 1e3, "ms"),
            _spread((_latency_at(s, trials) for s in searches), 1e3, "ms"),
            _spread((s["remeasured_latency_s"] for s in searches), 1e3, "ms"),
            _spread(total_s, 1 / 60, "min"),
            f"{learning_s / sum(total_s):.0%}",
            str(sum(sum(s["failures"].values()) for s in searches)),
            str(sum(s["failed_passes"] for s in searches))
            if "failed_passes" in searches[0]
            else "",
        )
    if result.get("untuned_latency_s") is not None:
        untuned = f"{1e3 * result['untuned_latency_s']:.3g} ms"
        yield ""
        yield f"The whole network, untuned, with warm caches: {untuned}."
    yield ""
    yield (
        f"{result['date'][:10]}, commit {result['commit']}, `{result['command']}` on "
        f"{hardware(result)}, target `{result['target']}`, TVM {machine['tvm']}."
    )


def _threads(result: dict[str, Any]) -> str:
    threads = result.get("threads", {})  # older results do not tell
    text = ", ".join(f"{model} {number}" for model, number in threads.items())
    return f" Threads for scoring: {text}." if text else ""


def _throughput(file: Path, result: dict[str, Any]) -> Iterator[str]:
    settings = result["settings"]
    yield (
        f"**Microseconds to score a state** ([data](results/{file.name}), "
        f"[plot](results/{file.with_suffix('.png').name})). "
        f"Median of {settings['repetitions']} repetitions in one run, up to {settings['states']} "
        "distinct states per task, none scored before. The ratio is XGBModel on two threads to "
        "CDMPPModel on one; the floor is handing the states over."
    )
    yield ""
    parts = ("hand-over", "parse", "apply", "features", "network")
    yield from table_head(
        "task", "XGBModel, 2 threads", "1 thread", "CDMPPModel, 2 threads", "1 thread", *parts,
        "ratio", "multiple of the floor",
    )  # fmt: skip
    for task in result["tasks"]:
        times = {k: v["median"] * 1e6 for k, v in task["seconds_per_state"].items()}
        yield table_row(
            task["task"],
            *(f"{times[f'{model} {n} total']:.0f}" for model in ("xgb", "ours") for n in (2, 1)),
            *(f"{times[f'part {part}']:.1f}" for part in parts),
            f"{task['ratio']['median']:.1f}",
            f"{task['floors']['median']:.2f}",
        )
    yield ""
    for name, verdict in result["requirements"].items():
        task = f" ({verdict['task']})" if "task" in verdict else ""
        met = "met" if verdict["met"] else "**not met**"
        figure = f"{name.replace('_', ' ')}: {verdict['value']:.3g}{task}"
        yield f"- {figure}; {verdict['required']} required: {met}"
    if "memory" in result:
        kept = result["memory"]["kept_bytes_per_10000_states"] / 2**20
        peak = result["memory"]["peak_bytes_with_10000_states"] / 2**20
        yield f"- memory for 10,000 states: {kept:.0f} MiB kept, {peak:.0f} MiB at the peak"
    for search in result.get("search_rounds", []):
        yield (
            f"- one search round of {search['task']}: {search['states']:,} states asked for, "
            f"{search['distinct_states']:,} distinct; {search['seconds_one_model']:.2f} s, against "
            f"{search['seconds_a_new_model_per_call']:.2f} s without remembering"
        )
    for curve in result.get("curves", []):
        yield (
            f"- time against {curve['x']} ({curve['task']}): a straight line explains "
            f"{curve['r_squared']:.1%}"
        )
    yield ""
    yield origin(result)


def _ablation(file: Path, result: dict[str, Any]) -> Iterator[str]:
    settings, data = result["settings"], result["data"]
    yield (
        f"**What each group of fields buys, {settings['device'].upper()}** "
        f"([data](results/{file.name})). {data['records']:,} published measurements of "
        f"{data['workloads']} workloads, {settings['test_share']:.0%} of the workloads held out; "
        f"mean over {settings['seeds']} seeds, with other workloads held out by each (standard "
        "deviation), and the difference to all fields on the same split."
    )
    yield ""
    yield from table_head("fields", "median APE", "MAPE", "Kendall's tau")
    for row in result["summary"]:
        # With the estimate a removed group still speaks through it; those are in the file.
        if not row["configuration"].endswith("alone") and not row["configuration"].startswith(
            "all"
        ):
            continue
        yield table_row(
            row["configuration"],
            *(_with_difference(row, metric, 100.0, 1, " %") for metric in ("median_ape", "mape")),
            _with_difference(row, "kendall_tau", 1.0, 3, ""),
        )
    yield ""
    yield origin(result)


def _ast_equality(file: Path, result: dict[str, Any]) -> Iterator[str]:
    total = result["total"]
    yield (
        f"**Compact ASTs without lowering against those of the lowered programs, "
        f"{total['states']:,} states of {total['tasks']} tasks** "
        f"([data](results/{file.name})). States are drawn by Ansor's sketch policy; "
        f"they agree when every field of every leaf does: {total['agreeing']:,} do."
    )
    yield ""
    yield from table_head(
        "target", "tasks", "states", "leaves", "states that agree", "what differs, in states"
    )
    devices: dict[str, list[dict[str, Any]]] = {}
    for task in result["tasks"]:
        devices.setdefault(task["task"].split("/")[1], []).append(task)
    for device, tasks in devices.items():
        causes: Counter[str] = Counter()
        for task in tasks:
            causes.update(task.get("causes", {}))
        sums = [sum(t.get(key, 0) for t in tasks) for key in ("states", "leaves", "agreeing")]
        differing = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        yield table_row(device, str(len(tasks)), *(f"{n:,}" for n in sums), differing or "nothing")
    yield ""
    yield (
        f"{total.get('refused', 0)} states are refused by both: TVM cannot lower them, or they "
        "compute nothing; "
        f"{total.get('opaque_reads', 0)} reads of the tasks have an index that is data or not "
        f"affine. Ansor refuses {', '.join(result['refused_by_ansor'])}."
    )
    yield ""
    yield origin(result)


def _data_import(file: Path, result: dict[str, Any]) -> Iterator[str]:
    done, reading = result["import"], result["reading"]
    seconds = reading["seconds"]
    kept = sum(done["bins"].get(name, 0) for name in _IN_THE_STORE)
    yield (
        f"**Import of {done['lines']:,} published measurements** "
        f"([data](results/{file.name})). {kept / done['lines']:.1%} of the lines are in "
        f"the store, as {done['records']:,} distinct programs of {reading['tasks']:,} tasks; the "
        f"DAGs of the others are not known{_derived(result)}. {done['seconds']:.0f} s, "
        f"{done['peak_bytes'] / 2**20:,.0f} MiB at the peak, {done['input_bytes'] / 2**20:.0f} MiB "
        f"of packed logs to {done['store_bytes'] / 2**20:.0f} MiB. Opening the store takes "
        f"{seconds['open'] * 1e3:.1f} ms, reading all latencies "
        f"{seconds['latencies of all records'] * 1e3:.0f} ms."
    )
    yield ""
    yield from table_head(
        "device", "source", "licence", "lines", *_IN_THE_STORE, "not in the store", "recovered",
        "with networks",
    )  # fmt: skip
    left_unknown = {
        (row["device"], row["source"]): row["bins"].get(_UNKNOWN, 0)
        for row in result.get("derived", {"sources": []})["sources"]
    }
    for row in done["sources"]:
        unknown = row["bins"].get(_UNKNOWN, 0)
        found = unknown - left_unknown.get((row["device"], row["source"]), unknown)
        counts = [row["bins"].get(name, 0) for name in _IN_THE_STORE]
        left = ", ".join(
            f"{count:,} {name}" for name, count in row["bins"].items() if name not in _IN_THE_STORE
        )
        yield table_row(
            row["device"], row["source"], row["licence"], f"{row['lines']:,}",
            *(f"{count:,}" for count in counts), left or "nothing", f"{row['recovered']:.1%}",
            f"{row['recovered'] + found / row['lines']:.1%}" if found else "",
        )  # fmt: skip
    yield ""
    yield origin(result)


def _derived(result: dict[str, Any]) -> str:
    if "derived" not in result:
        return ""
    done = result["derived"]
    unknown = result["import"]["bins"].get(_UNKNOWN, 0)
    found = unknown - done["bins"].get(_UNKNOWN, 0)
    return (
        f" ({found:,} of their {unknown:,} lines become known by deriving the tasks of "
        f"{done['networks'].replace(',', ', ')}, in {done['seconds'] / 60:.0f} min)"
    )


def _data_quality(file: Path, result: dict[str, Any]) -> Iterator[str]:
    yield (
        f"**Noise of {result['records']:,} published measurements' labels** "
        f"([data](results/{file.name}), [plot](results/data-info.png)). The "
        "noise floor is the mean absolute percentage error (median in brackets) of a perfect "
        "predictor of the true latency. It is a lower bound, marked ≥, where it comes from "
        "programs measured again within one log, or only from the repeats of a measurement. "
        "Equal features: programs of one task that a predictor cannot tell apart bound from above "
        "the noise within a run; what differs between runs is hardly in it. Flagged: measured at "
        "a contended time only, or faster than the device allows."
    )
    yield ""
    yield from table_head(
        "device", "programs", "failed", "flagged", "pairs between logs, median difference",
        "within a log", "variation of repeats", "noise floor", "groups of equal features",
        "their noise",
    )  # fmt: skip
    for row in result["devices"]:
        noise, alike = row["noise"], row["alike"]
        yield table_row(
            row["device"], f"{row['records']:,}", f"{row['failed'] / row['records']:.1%}",
            f"{sum(row['flags'].values()):,}", _pairs(noise["between_logs"]),
            _pairs(noise["within_a_log"]), _percent(noise["variation_median"]),
            _floor(noise, "" if noise["basis"] == "between logs" else "≥ "),
            f"{alike['pairs']:,}", _floor(alike, "≤ "),
        )  # fmt: skip
    yield ""
    yield "The official splits, in programs:"
    yield ""
    parts = ("train", "validation", "test", "left_out")
    yield from table_head("split", "train", "validation", "test", "left out", "what it is")
    for row in result["splits"]:
        yield table_row(row["name"], *(f"{row[part]:,}" for part in parts), row["note"])
    yield ""
    yield origin(result)


def _pairs(differences: dict[str, Any]) -> str:
    pairs, median = differences["pairs"], differences["difference_median"]
    return f"{pairs:,}, {_percent(median)}" if pairs else "-"


def _floor(figures: dict[str, Any], bound: str) -> str:
    mean, median = figures["floor_mape"], figures["floor_median_ape"]
    return "not known" if mean is None else f"{bound}{_percent(mean)} ({_percent(median)})"


def _percent(value: float | None) -> str:
    """Write two digits, as noise is between 0.01 % and 30 %."""
    return "-" if value is None else f"{100 * value:.2g}%"


def _with_difference(row: dict[str, Any], metric: str, scale: float, digits: int, unit: str) -> str:
    mean, spread = (scale * row[metric][part] for part in ("mean", "spread"))
    text = f"{mean:.{digits}f}{unit} ({spread:.{digits}f})"
    if row["configuration"].startswith("all fields"):
        return text
    difference, spread = (scale * row[f"{metric}_difference"][part] for part in ("mean", "spread"))
    return f"{text}, {difference:+.{digits}f} ({spread:.{digits}f})"


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
