"""States scored per second: `CDMPPModel` against TVM's `XGBModel`, in one run.

`python benchmarks/throughput.py` writes `results/throughput.json` and a plot next to it.

- Both models get the same distinct states of the same tasks, as the array that TVM hands to a cost
  model. The XGBoost booster is really trained, on other states of the task, with the analytic
  estimate and noise as costs: nothing is measured, but its trees are as deep as a search's.
- A repetition scores with every model in turn, and ratios are taken within repetitions, so that a
  machine that slows down slows all; the result is the median over repetitions. Each repetition has
  a new `CDMPPModel`, which has seen one other state of the task, so that no score comes from
  memory; what remembering buys is told apart.
- "One thread" pins all threads of the process to one core, "two threads" to two. TVM extracts
  features with one thread per core, XGBoost's `nthread` is set.
- The floor is the hand-over alone: states to log lines, which no model outside of TVM can avoid.
"""

import argparse
import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
import xgboost

if not __package__:  # started as a file, so that only its own folder is searched
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import RESULTS, provenance, write_json
from benchmarks.workloads.tasks import ZooTask, make_task, sample_states, throughput_tasks
from tvm_cdmpp.ast import COLUMN
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import Hardware, detect_cpu, generic_gpu
from tvm_cdmpp.extract import LayoutRewrite, StepExtractor, analyse, dump_records
from tvm_cdmpp.models import load_weights
from tvm_cdmpp.search import CDMPPModel

tvm = load_tvm()
te, auto_scheduler = tvm.te, tvm.auto_scheduler
xgb_module = auto_scheduler.cost_model.xgb_model

REQUIRED_GEOMETRIC_MEAN = 40.0
REQUIRED_EACH = 15.0
ALLOWED_FLOORS = 4.0
TRAINING_STATES = 100
PARTS = ("hand-over", "parse", "apply", "features", "network")
CURVE_STATES = (10, 30, 100, 300, 1000, 2048, 4096)
STATES_PER_CALL = 2000
"""As many as an evolutionary search asks for at once."""
MEMORY_STATES = 10_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    states: int
    """Per task; as many as it has, if fewer."""
    repetitions: int
    curves: bool
    seed: int = 0


def matmul_chain(length: int) -> list[Any]:
    """Return `length` products one after the other: more leaves and, with them, more loops."""
    size = 32
    tensors = [te.placeholder((size, size), name="A")]
    for n in range(length):
        weight = te.placeholder((size, size), name=f"W{n}")
        tensors = [*tensors[:-1], weight, _product(tensors[-1], weight, f"C{n}")]
    return tensors


def contraction(axes: int) -> list[Any]:
    """Return a product over one axis with `axes` spatial ones: more loops around as many leaves."""
    a = te.placeholder((*[4] * axes, 16), name="A")
    b = te.placeholder((16,), name="B")
    k = te.reduce_axis((0, 16), name="k")
    c = te.compute([4] * axes, lambda *i: te.sum(a(*i, k) * b[k], axis=k), name="C")
    return [a, b, c]


def shuffled_states(task: Any, n: int, seed: int) -> list[Any]:
    """Draw up to `n` distinct states, random and evolved ones mixed."""
    states = sample_states(task, n, seed)
    order = np.random.default_rng(seed).permutation(len(states))
    return [states[place] for place in order]


@contextmanager
def cores(n: int) -> Iterator[None]:
    """Pin every thread of this process, and those it starts, to the first `n` logical cores."""
    everything = os.sched_getaffinity(0)
    if len(everything) < n:
        raise SystemExit(f"this benchmark needs {n} cores; the process may use {len(everything)}")
    threads = torch.get_num_threads()
    _pin(set(sorted(everything)[:n]))
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _pin(everything)


def _pin(cpus: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except ProcessLookupError:  # it ended in between
            continue


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and what it returned."""
    gc.collect()
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


class XGBTimer:
    """TVM's XGBModel with a trained booster, and the seconds of its two parts.

    Parameters
    ----------
    task
        The search task.
    states
        To train on.
    seed
        Of the noise of the costs.
    """

    def __init__(self, task: Any, states: Sequence[Any], seed: int) -> None:
        self.model = auto_scheduler.XGBModel(num_warmup_sample=1, seed=seed + 1, verbose_eval=0)
        self._task = task
        scores = np.array(CDMPPModel(seed=seed).predict(task, states))
        noise = np.random.default_rng(seed).lognormal(0.0, 0.1, len(states))
        self.model.update(
            [auto_scheduler.MeasureInput(task, state) for state in states],
            [auto_scheduler.MeasureResult([c], 0, "", 0.1, 0.0) for c in noise / scores],
        )
        if self.model.bst is None:
            raise RuntimeError("XGBoost did not train, so its scores would be random numbers")

    def seconds(self, states: Any, threads: int) -> dict[str, float]:
        """Return the seconds that scoring takes, and those of it in features."""
        extract = xgb_module.get_per_store_features_from_states
        in_features: list[float] = []

        def timed_extract(*arguments: Any) -> Any:
            begin = time.perf_counter()
            features = extract(*arguments)
            in_features.append(time.perf_counter() - begin)
            return features

        self.model.bst.set_param({"nthread": threads})
        with (
            cores(threads),
            xgboost.config_context(nthread=threads),
            mock.patch.object(xgb_module, extract.__name__, timed_extract),
        ):
            total, _ = timed(lambda: self.model.predict(self._task, states))
        return {"total": total, "features": in_features[0]}


def ours_seconds(task: Any, first: Any, states: Any, threads: int) -> dict[str, float]:
    """Return the seconds of scoring states with a new model, and of scoring them again."""
    model = CDMPPModel(seed=0, num_threads=threads)
    with cores(threads):
        # What a task costs once: the analysis of its DAG.
        first_call, _ = timed(lambda: model.predict(task, _array([first])))
        total, scores = timed(lambda: model.predict(task, states))
        again, _ = timed(lambda: model.predict(task, states))
    if model.num_unscored or not np.isfinite(scores).all():
        raise RuntimeError(f"{model.num_unscored} of {len(states)} states were not analysed")
    return {"total": total, "again": again, "first call": first_call}


def parts_seconds(task: Any, states: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of each part of our path on one thread, and figures of the programs."""
    graph = analyse(task.compute_dag)
    extractor = StepExtractor(
        graph,
        Hardware.of(task.hardware_params),
        LayoutRewrite(int(task.layout_rewrite_option)),
    )
    predictor = load_weights("shipped")
    device = detect_cpu() if task.target.kind.name == "llvm" else generic_gpu("gpu")
    with cores(1):
        hand_over, records = timed(lambda: dump_records(task, states))
        extract, (batch, errors) = timed(lambda: extractor.extract(records))
        network, _ = timed(lambda: predictor.predict(batch, device))
    if errors:
        raise RuntimeError(f"{len(errors)} states were not analysed: {next(iter(errors.values()))}")
    inside = {name: extractor.seconds[name] for name in ("parse", "apply", "features")}
    # What lies between the parts is counted with the features.
    inside["features"] += extract - sum(inside.values())
    loops = np.exp2(batch.vectors[:, COLUMN["num_loops"]].astype(np.float64)) - 1.0
    figures = {
        "leaves": float(batch.leaf_counts.mean()),
        "loops": float(loops.sum() / len(batch)),
        "record_bytes": len(records) / len(batch),
    }
    return {"hand-over": hand_over, **inside, "network": network}, figures


def measure_task(zoo_task: ZooTask, settings: Settings) -> dict[str, Any]:
    """Return everything about one task, in seconds per state."""
    task = zoo_task.make()
    drawn = shuffled_states(task, settings.states + TRAINING_STATES + 1, settings.seed)
    # Simple tasks have few states: most are to be scored.
    split = min(TRAINING_STATES, max(len(drawn) // 4, 2))
    first, training = drawn[0], drawn[1 : split + 1]
    scored = _array(drawn[split + 1 :][: settings.states])
    xgb = XGBTimer(task, training, settings.seed)
    samples: dict[str, list[float]] = {}

    def add(prefix: str, seconds: dict[str, float]) -> None:
        for part, value in seconds.items():
            samples.setdefault(f"{prefix} {part}", []).append(value / len(scored))

    figures: dict[str, float] = {}
    for _ in range(settings.repetitions):
        add("xgb 1", xgb.seconds(scored, 1))
        add("ours 2", ours_seconds(task, first, scored, 2))
        # What is compared is measured in a row.
        add("xgb 2", xgb.seconds(scored, 2))
        add("ours 1", ours_seconds(task, first, scored, 1))
        parts, figures = parts_seconds(task, scored)
        add("part", parts)

    def quotients(one: str, other: str) -> dict[str, float]:
        """Compare within repetitions, which share the machine's mood."""
        pairs = zip(samples[one], samples[other], strict=True)
        return _median_and_range([a / b for a, b in pairs])

    first_calls = [value * len(scored) for value in samples["ours 1 first call"]]
    return {
        "task": zoo_task.name,
        "states": len(scored),
        "training_states": len(training),
        **figures,
        "first_call_s": _median_and_range(first_calls),
        "seconds_per_state": {
            key: _median_and_range(values)
            for key, values in samples.items()
            if "first call" not in key
        },
        "ratio": quotients("xgb 2 total", "ours 1 total"),
        "ratio_two_threads": quotients("xgb 2 total", "ours 2 total"),
        "ratio_one_thread": quotients("xgb 1 total", "ours 1 total"),
        "floors": quotients("ours 1 total", "part hand-over"),
        "again": quotients("ours 1 again", "ours 1 total"),
    }


def search_round(task: Any, settings: Settings) -> dict[str, Any]:
    """Return what remembering buys in one round of Ansor's search with the default population."""
    calls: list[Any] = []

    class Recorder(CDMPPModel):
        def predict(self, task: Any, states: Any) -> list[float]:
            calls.append(states)
            return super().predict(task, states)

    policy = auto_scheduler.SketchPolicy(
        task, Recorder(seed=settings.seed), seed=settings.seed + 1, verbose=0
    )
    policy.evolutionary_search(policy.sample_initial_population(), 64)
    lines = [line for states in calls for line in dump_records(task, states).splitlines()]
    model = CDMPPModel(seed=settings.seed)
    one, each = 0.0, 0.0
    with cores(1):
        for states in calls:
            one += timed(partial(model.predict, task, states))[0]
            fresh = CDMPPModel(seed=settings.seed)
            fresh.predict(task, _array([states[0]]))
            each += timed(partial(fresh.predict, task, states))[0]
    return {
        "calls": len(calls),
        "states": len(lines),
        "distinct_states": len(set(lines)),
        "seconds_one_model": one,
        "seconds_a_new_model_per_call": each,
    }


def memory(task: Any, states: Sequence[Any], settings: Settings) -> dict[str, Any]:
    """Return the growth of the resident set while a model scores states in calls as of a search."""
    model = CDMPPModel(seed=settings.seed)
    model.predict(task, _array(states[:1]))
    calls = [
        _array(states[at : at + STATES_PER_CALL]) for at in range(0, len(states), STATES_PER_CALL)
    ]
    _return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status_bytes("VmRSS")
    for call in calls:
        model.predict(task, call)
    peak = _status_bytes("VmHWM") - before
    _return_free_memory()
    kept = _status_bytes("VmRSS") - before
    return {
        "method": "resident set size of the process, /proc/self/status",
        "states": len(states),
        "states_per_call": STATES_PER_CALL,
        "kept_bytes": kept,
        "peak_bytes": peak,
        "kept_bytes_per_10000_states": kept * 10_000 / len(states),
        # The peak is that of a call plus what is kept.
        "peak_bytes_with_10000_states": kept * 10_000 / len(states) + max(peak - kept, 0),
    }


def curve_states(task: Any, states: Sequence[Any], settings: Settings) -> dict[str, Any]:
    """Return the seconds against the number of states in a call."""
    points = []
    for n in sorted({min(n, len(states) - 1) for n in CURVE_STATES}):
        chosen = _array(states[1 : n + 1])
        runs = [
            ours_seconds(task, states[0], chosen, 1)["total"] for _ in range(settings.repetitions)
        ]
        points.append({"x": n, "seconds": _median_and_range(runs)})
    return {"x": "states in a call", "points": points, **_fit_line(points)}


def curve_programs(
    x: str, builder: Callable[..., list[Any]], sizes: Sequence[int], settings: Settings
) -> dict[str, Any]:
    """Return the seconds per state against leaves or loops, over tasks of growing size."""
    points = []
    for size in sizes:
        task = make_task(builder, args=[size])
        first, *rest = shuffled_states(task, min(settings.states, 500) + 1, settings.seed)
        states = _array(rest)
        runs = [
            ours_seconds(task, first, states, 1)["total"] / len(states)
            for _ in range(settings.repetitions)
        ]
        _, figures = parts_seconds(task, states)
        points.append({"x": figures[x], **figures, "seconds": _median_and_range(runs)})
    return {"x": f"{x} per program", "points": points, **_fit_line(points)}


def judge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the results with what is required of them."""
    geometric_mean = statistics.geometric_mean(r["ratio"]["median"] for r in results)
    worst = min(results, key=lambda r: r["ratio"]["median"])
    heaviest = max(results, key=lambda r: r["floors"]["median"])
    return {
        "geometric_mean_ratio": {
            "required": f"at least {REQUIRED_GEOMETRIC_MEAN:g}",
            "value": geometric_mean,
            "met": geometric_mean >= REQUIRED_GEOMETRIC_MEAN,
        },
        "smallest_ratio": {
            "required": f"at least {REQUIRED_EACH:g}",
            "value": worst["ratio"]["median"],
            "task": worst["task"],
            "met": worst["ratio"]["median"] >= REQUIRED_EACH,
        },
        "largest_multiple_of_the_floor": {
            "required": f"at most {ALLOWED_FLOORS:g}",
            "value": heaviest["floors"]["median"],
            "task": heaviest["task"],
            "met": heaviest["floors"]["median"] <= ALLOWED_FLOORS,
        },
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lay the result out as lines of text; microseconds per state."""
    yield (
        f"{'us per state':32}{'states':>7}{'xgb 2':>9}{'xgb 1':>9}{'ours 1':>8}{'ours 2':>8}"
        f"{'again':>7} |"
        + "".join(f"{part:>10}" for part in PARTS)
        + f" |{'ratio':>7}{'floors':>8}"
    )
    for row in result["tasks"]:
        times = {k: v["median"] * 1e6 for k, v in row["seconds_per_state"].items()}
        yield (
            f"{row['task']:32}{row['states']:7}{times['xgb 2 total']:9.0f}"
            f"{times['xgb 1 total']:9.0f}{times['ours 1 total']:8.1f}{times['ours 2 total']:8.1f}"
            f"{times['ours 1 again']:7.1f} |"
            + "".join(f"{times[f'part {part}']:10.1f}" for part in PARTS)
            + f" |{row['ratio']['median']:7.1f}{row['floors']['median']:8.2f}"
        )
    for name, verdict in result["requirements"].items():
        met = "met" if verdict["met"] else "NOT MET"
        task = f" ({verdict['task']})" if "task" in verdict else ""
        text = name.replace("_", " ")
        yield f"{text}: {verdict['value']:.2f}{task}, {verdict['required']} required: {met}"
    if "memory" in result:
        kept = result["memory"]["kept_bytes_per_10000_states"] / 2**20
        peak = result["memory"]["peak_bytes_with_10000_states"] / 2**20
        yield f"memory for 10,000 states: {kept:.0f} MiB kept, {peak:.0f} MiB at the peak"
    for search in result.get("search_rounds", []):
        yield (
            f"a round of {search['task']}: {search['states']} states asked, "
            f"{search['distinct_states']} distinct; {search['seconds_one_model']:.2f} s, or "
            f"{search['seconds_a_new_model_per_call']:.2f} s without remembering"
        )
    for curve in result.get("curves", []):
        yield (
            f"time against {curve['x']}: exponent {curve['exponent']:.2f}, straight line explains "
            f"{curve['r_squared']:.1%}"
        )


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw where the time goes, and time against states."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = result.get("curves", [])
    figure, axes = pyplot.subplots(
        1, 1 + len(curves), figsize=(7 + 4 * len(curves), 4.5), squeeze=False
    )
    bars = axes[0][0]
    names = [row["task"] for row in result["tasks"]]
    left = np.zeros(len(names))
    for part in PARTS:
        width = np.array(
            [r["seconds_per_state"][f"part {part}"]["median"] * 1e6 for r in result["tasks"]]
        )
        bars.barh(names, width, left=left, label=part)
        left += width
    bars.set_xlabel("µs per state, one thread")
    bars.legend()
    for axis, curve in zip(axes[0][1:], curves, strict=True):
        axis.plot(
            [p["x"] for p in curve["points"]],
            [p["seconds"]["median"] * 1e3 for p in curve["points"]],
            marker="o",
        )
        axis.set(xlabel=curve["x"], ylabel="ms", xlim=(0, None), ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=1000, help="per task")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-curves", action="store_true", help="ratios only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    args = parser.parse_args(arguments)
    settings = Settings(states=args.states, repetitions=args.repetitions, curves=not args.no_curves)
    result = {
        **provenance("torch", packages_distributions()["xgboost"][0], "numpy"),
        "settings": {**asdict(settings), "cores": len(os.sched_getaffinity(0))},
        "tasks": [],
    }
    for zoo_task in throughput_tasks():
        row = measure_task(zoo_task, settings)
        result["tasks"].append(row)
        ratio, floors = row["ratio"]["median"], row["floors"]["median"]
        print(f"{row['task']}: {ratio:.1f} times XGBModel, {floors:.2f} floors", flush=True)
    result["requirements"] = judge(result["tasks"])
    path = args.out / "throughput.json"
    write_json(path, result)
    if settings.curves:
        add_curves(result, settings)
        write_json(path, result)
    plot(result, path.with_suffix(".png"))
    print("\n".join(table(result)))
    return 0


def add_curves(result: dict[str, Any], settings: Settings) -> None:
    """Add memory, curves and what remembering buys."""
    chosen = {zoo_task.name: zoo_task for zoo_task in throughput_tasks()}
    name = next(name for name in chosen if "conv2d_nhwc" in name)
    task = chosen[name].make()
    states = shuffled_states(task, MEMORY_STATES + 1, settings.seed)
    result["memory"] = {"task": name, **memory(task, states, settings)}
    print("memory done", flush=True)
    result["curves"] = [
        {"task": name, **curve_states(task, states, settings)},
        {
            "task": "chains of matmul",
            **curve_programs("leaves", matmul_chain, range(1, 7), settings),
        },
        {
            "task": "contractions with growing rank",
            **curve_programs("loops", contraction, range(1, 7), settings),
        },
    ]
    print("curves done", flush=True)
    rounds = [name, next(n for n in chosen if "conv2d" in n and "cuda" in n)]
    result["search_rounds"] = [
        {"task": n, **search_round(chosen[n].make(), settings)} for n in rounds
    ]


def _product(a: Any, b: Any, name: str) -> Any:
    axis = te.reduce_axis((0, a.shape[1]), name=f"k{name}")
    return te.compute(
        (a.shape[0], b.shape[1]), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name=name
    )


def _array(states: Sequence[Any]) -> Any:
    """Return states as TVM hands them to a cost model."""
    return tvm.runtime.convert(list(states))


def _status_bytes(entry: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))


def _return_free_memory() -> None:
    """Give what nothing refers to back to the system, which would hide what is allocated next."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _median_and_range(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _fit_line(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Fit seconds = a + b x, and the exponent of a power law between the two ends."""
    x: npt.NDArray[np.float64] = np.array([p["x"] for p in points], dtype=np.float64)
    y: npt.NDArray[np.float64] = np.array([p["seconds"]["median"] for p in points])
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - (slope * x + intercept)
    spread = float(((y - y.mean()) ** 2).sum())
    return {
        "slope_s": float(slope),
        "intercept_s": float(intercept),
        "r_squared": 1.0 - float((residual**2).sum()) / spread if spread else 1.0,
        "exponent": float(np.log(y[-1] / y[0]) / np.log(x[-1] / x[0])),
    }


if __name__ == "__main__":
    sys.exit(main())
