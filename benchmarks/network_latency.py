"""Predicted latencies of whole networks against measured ones, on this machine.

    python -m benchmarks.network_latency --prepare
    python -m benchmarks.network_latency --out benchmarks/results/network-latency.json

The first line makes a small log of each network (or takes `NETWORK.bBATCH.json` of `--logs`) and
compiles it, with TVM's own schedules and with the log; a busy machine does for that. The second
measures, on a quiet one: in each of some rounds all networks, one after the other, both libraries
run by run, and in between each operator, inside of the network and by itself
(`benchmarks.operator_times`). Medians count. A fixed program is measured after each network; what
was noisy is measured again. With `--adapt N`, `tvm-cdmpp adapt` measures N records of the networks
in between, a batch before each round, as a machine's speed may change within minutes. Beside the
measured network stand

- replayed: the replayer with the operators' times inside of it, which is the replayer's own error.
  They are compared with the network's runs of the same round, as a machine's speed changes;
- alone: the same with operators that are run again and again, their memory in the caches;
- from_alone: the same with what the replayer makes of these, which caches keep less of inside;
- predictions and simpler estimates (`benchmarks.latency_estimates`).

All is kept below `--folder` after each round, so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_estimates import Source, estimates, matrix_flops_per_s
from benchmarks.latency_files import FILES, write_files
from benchmarks.latency_tables import CURVE, learning_curves, summary
from benchmarks.operator_times import TimedNetwork
from benchmarks.provenance import provenance, write_json
from tvm_cdmpp.bridge import default_target, device_of, load_tvm, use_physical_cores
from tvm_cdmpp.cli import adapt
from tvm_cdmpp.cli.main import build_parser
from tvm_cdmpp.devices import DeviceSpec, read_host_cpu
from tvm_cdmpp.measure import (
    Calibration,
    CalibrationConfig,
    MeasureOptions,
    MeasureSession,
    matmul_timer,
    wait_until_idle,
)
from tvm_cdmpp.networks import Network, deploy, load_network, random_inputs
from tvm_cdmpp.replay import NetworkForecast, OperatorGraph, QueueConfig, read_graph, replay

tvm = load_tvm()

NETWORKS = (
    "mlp", "dcgan", "squeezenet", "mobilenet", "resnet-18", "densenet-121", "vit-tiny", "bert-tiny",
    *FILES,
)  # fmt: skip
OWN, LOG = "TVM's own", "log"

_RUNS_S = 0.2
"""Time of the runs of a network in a round."""
_OPERATOR_RUNS = 5
_PARTS = 8
"""Of the runs of a network in a round, with some of its operators after each."""


@dataclass(frozen=True)
class Case:
    """A network at one size of its batch, and what is kept of it."""

    name: str
    batch: int
    folder: Path

    @property
    def log(self) -> Path:
        """Of its schedules."""
        return self.folder / "log.json"

    @property
    def measured(self) -> Path:
        """Result of the measurement."""
        return self.folder / "measured.json"

    def library(self, schedules: str) -> Path:
        """Return where the compiled network is."""
        return self.folder / ("own.so" if schedules == OWN else "log.so")

    def load(self) -> Network:
        """Make the network."""
        if self.name not in FILES:
            return load_network(self.name, batch=self.batch)
        file = self.folder.parent / self.name
        write_files(self.folder.parent)
        return load_network(str(file), **FILES[self.name](self.batch))

    def prepare(self, logs: Path | None, trials: int) -> None:
        """Make what is missing of the log and of both libraries."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if all(self.library(schedules).exists() for schedules in (OWN, LOG)):
            return
        network = self.load()
        if not self.log.exists():
            given = None if logs is None else logs / f"{self.folder.name}.json"
            if given is not None and given.exists():
                self.log.write_bytes(given.read_bytes())
            else:
                self._tune(trials)
        for schedules, log in ((OWN, None), (LOG, self.log)):
            if not self.library(schedules).exists():
                print(f"{self.folder.name}: compiling, schedules: {schedules}", flush=True)
                deploy(network, default_target(), log).export(self.library(schedules))

    @property
    def options(self) -> list[str]:
        """Inputs as the command line takes them, but for the batch."""
        shapes = FILES[self.name](self.batch).get("input_shapes", {}) if self.name in FILES else {}
        pairs = [(name, "x".join(map(str, shape))) for name, shape in shapes.items()]
        return [part for name, shape in pairs for part in ("--input-shape", f"{name}:{shape}")]

    @property
    def path(self) -> str:
        """Name or file of the network."""
        return str(self.folder.parent / self.name) if self.name in FILES else self.name

    def num_rounds(self) -> int:
        """Return how many rounds are kept."""
        if not self.measured.exists():
            return 0
        return len(json.loads(self.measured.read_bytes())[OWN]["rounds"])

    def rows(self, adapted: Path | None) -> list[dict[str, Any]]:
        """Return what was measured beside all estimates."""
        content, network = json.loads(self.measured.read_bytes()), self.load()
        rate, here = float(np.median(content["rounds_flops_per_s"])), device_of(default_target())
        found = []
        for schedules, log in ((OWN, None), (LOG, self.log)):
            graph = read_graph(content[schedules]["graph"], content[schedules]["parameters"])
            forecast = NetworkForecast(network, log=log)
            rounds = content[schedules]["rounds"]
            runs_s = np.concatenate([samples["network"] for samples in rounds])
            measured_s = float(np.median(runs_s))
            found.append(
                {
                    "network": network.name,
                    "batch": self.batch,
                    "schedules": schedules,
                    "measured_s": measured_s,
                    "quartiles_s": np.quantile(runs_s, [0.25, 0.75]).tolist(),
                    "rounds": len(rounds),
                    "noisy_rounds": content["noisy_rounds"],
                    "replayed_s": measured_s * _replayed(graph, rounds, "operators"),
                    "alone_s": measured_s * _replayed(graph, rounds, "alone"),
                    "from_alone_s": measured_s * _from_alone(forecast, here, rounds),
                    "operators": len(graph.operators),
                    "operators_s": _medians_over(rounds, "operators"),
                    **estimates(forecast, here, rate, adapted),
                }
            )
        return found

    def _tune(self, trials: int) -> None:
        """Search a few programs, in a process of its own."""
        options = ["--log", str(self.log), "--trials", str(trials), "--no-calibrate"]
        options += ["--batch", str(self.batch), *self.options]
        subprocess.run([sys.executable, "-m", "tvm_cdmpp", "tune", self.path, *options], check=True)


class Measurement:
    """Of a network whose libraries are there; goes on with the rounds that were kept.

    What takes microseconds is mostly waking threads, and that depends on which cores of the host a
    rented machine's run on, for half a minute at a time. So in a round such a network is measured
    at many moments, of which the mean counts.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._content: dict[str, Any] = {"seconds": 0.0, "noisy_rounds": 0, OWN: {}, LOG: {}}
        if case.measured.exists():
            self._content = json.loads(case.measured.read_bytes())
        inputs = random_inputs(case.load(), seed=0)
        self._timed = {
            schedules: TimedNetwork(tvm.runtime.load_module(str(case.library(schedules))), inputs)
            for schedules in (OWN, LOG)
        }
        for schedules, network in self._timed.items():
            self._content[schedules] = {
                "rounds": [],
                **self._content[schedules],
                "graph": network.graph_json,
                "parameters": sorted(network.parameters),
            }

        self._moments: dict[str, list[dict[str, Any]]] = {OWN: [], LOG: []}

    @property
    def num_rounds(self) -> int:
        """How many there are."""
        return len(self._content[OWN]["rounds"])

    @property
    def is_short(self) -> bool:
        """Whether it is measured at many moments."""
        return all(network.is_short for network in self._timed.values())

    def take_moment(self) -> None:
        """Time both libraries and their operators, as a part of the next round."""
        for schedules, network in self._timed.items():
            self._moments[schedules].append(_round(network))

    def take_round(self, quiet: Quiet) -> None:
        """Time both libraries and their operators, and keep that with the moments before."""
        begin = time.monotonic()
        _, is_quiet = quiet.take(self.take_moment)
        for schedules, moments in self._moments.items():
            kept = _mean_of(moments) if self.is_short else moments[-1]
            self._content[schedules]["rounds"].append(kept)
            moments.clear()
        self._content["noisy_rounds"] += not is_quiet
        rates = self._content.setdefault("rounds_flops_per_s", [])
        rates.append(quiet.take(matrix_flops_per_s)[0])
        self._content["seconds"] += time.monotonic() - begin
        write_json(self._case.measured, self._content)


class Quiet:
    """Measures on a quiet machine; use it inside an entered `MeasureSession`."""

    def __init__(self, folder: Path, config: CalibrationConfig) -> None:
        options, target = MeasureOptions(), default_target()
        timer = matmul_timer(options.builder(), options.runner(on_cpu=True), target, num_devices=1)
        self._calibration = Calibration(timer, config, folder / "calibration.jsonl")
        self._config = config
        for _ in range(config.start_measurements):
            self._calibration.check()

    def take(self, measure: Callable[[], Any]) -> tuple[Any, bool]:
        """Measure, again while the machine is noisy; return what was found, and if it was quiet."""
        for attempt in range(1, self._config.attempts + 1):
            found, is_quiet = measure(), self._calibration.check()
            self._calibration.write(0, 0)
            if is_quiet or (attempt == self._config.attempts and self._config.keep_noisy):
                return found, is_quiet
            if attempt < self._config.attempts:
                time.sleep(self._config.pause_s)
        raise SystemExit(
            "the machine is noisy: end other programs and run again, or give --keep-noisy"
        )


def main() -> None:
    """Prepare what is missing; measure, write, print."""
    use_physical_cores()  # as predictions have it; TVM's default is half of the logical ones
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--logs", type=Path, help="folder with NETWORK.bBATCH.json")
    parser.add_argument("--trials", type=int, default=64, help="of a log that is made here")
    parser.add_argument("--folder", type=Path, default=Path("latency-runs"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prepare", action="store_true", help="tune and compile, measure nothing")
    parser.add_argument("--keep-noisy", action="store_true")
    parser.add_argument(
        "--adapted", type=lambda text: list(map(Path, text.split(","))),
        help="weights of `adapt` for this machine, one file or one for each batch",
    )  # fmt: skip
    parser.add_argument("--adapt", type=int, metavar="N", help="adapt weights with N records")
    parser.add_argument("--source", type=Path, help="result file of another device")
    parser.add_argument("--source-device", help="that device: a name, or a file of figures")
    parser.add_argument("--out", type=Path, default=Path("network-latency.json"))
    args = parser.parse_args()
    if (args.source is None) != (args.source_device is None):
        parser.error("--source and --source-device belong together")
    source = None if args.source is None else Source.read(args.source, args.source_device)
    batches = [int(batch) for batch in args.batches.split(",")]
    adapted = args.adapted or [None]
    if args.adapted and args.adapt:
        parser.error("--adapt makes the weights that --adapted would name; give one of them")
    if len(adapted) not in (1, len(batches)):
        parser.error(f"--adapted takes 1 file or {len(batches)}, one for each of --batches")
    weights = dict(zip(batches, adapted * (len(batches) // len(adapted)), strict=True))
    cases = [
        Case(name, batch, args.folder / f"{name}.b{batch}")
        for name in args.networks.split(",")
        for batch in batches
    ]
    for case in cases:
        case.prepare(args.logs, args.trials)
    if args.prepare:
        return
    for batch in batches:
        made = _measure([case for case in cases if case.batch == batch], args)
        weights[batch] = made or weights[batch]
    rows = _rows(cases, weights)
    if source is not None:
        here = device_of(default_target())
        rows = [{**row, **source.scale(row, here)} for row in rows]
    curves = {str(batch): curve for batch in batches if (curve := _curve(args.folder, batch))}
    write_json(args.out, {**provenance("numpy", "torch"), "curves": curves, "rows": rows})
    print("\n".join([*summary(rows), "", *learning_curves(curves)]))


def _curve(folder: Path, batch: int) -> list[dict[str, Any]]:
    """Return how the error fell while weights were adapted; nothing where none were."""
    file = folder / f"adapted.b{batch}.json.curve.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    points = map(json.loads, lines)
    return [{name: point[name] for name in CURVE} for point in points]


def _rows(cases: Sequence[Case], weights: Mapping[int, Path | None]) -> list[dict[str, Any]]:
    """Return the rows of all cases, made side by side, as lowering a network takes a minute."""
    of_case = [weights[case.batch] for case in cases]
    with ProcessPoolExecutor(
        read_host_cpu().physical_cores, get_context("spawn"), use_physical_cores
    ) as pool:
        return [row for rows in pool.map(Case.rows, cases, of_case) for row in rows]


def _measure(cases: Sequence[Case], args: argparse.Namespace) -> Path | None:
    """Take the rounds that are missing, of networks at one size of the batch.

    With `--adapt`, adapt weights meanwhile, and return where they are.
    """
    config = CalibrationConfig(keep_noisy=args.keep_noisy, attempts=1 if args.keep_noisy else 3)
    found = [Measurement(case) for case in cases if case.num_rounds() < args.rounds]
    quiet = functools.cache(lambda: Quiet(args.folder, config))  # in a session

    def take_round() -> None:
        number = min((each.num_rounds for each in found), default=args.rounds)
        if number == args.rounds:
            return
        begin = time.monotonic()
        due = [each for each in found if each.num_rounds == number]
        short = [each for each in due if each.is_short]
        for measurement in due:
            if not measurement.is_short:
                measurement.take_round(quiet())
                for each in short:
                    each.take_moment()
        for each in short:
            each.take_round(quiet())
        seconds = time.monotonic() - begin
        print(f"round {number + 1} of {args.rounds}, {seconds:.0f} s", flush=True)

    weights = _adapt(cases, args, take_round) if args.adapt else None
    with MeasureSession():
        for _ in range(args.rounds):
            take_round()
    return weights


def _adapt(cases: Sequence[Case], args: argparse.Namespace, take_round: Callable[[], None]) -> Path:
    """Adapt weights to this machine; after each of as many batches as there are rounds, take one.

    Weights that are there are kept.
    """
    batch = cases[0].batch
    weights: Path = args.folder / f"adapted.b{batch}.safetensors"
    if not weights.exists():
        line = [
            "adapt", "--device", device_of(default_target()).name, "--budget", str(args.adapt),
            "--batch", str(-(-args.adapt // args.rounds)), "--input-batch", str(batch),
            "--networks", ",".join(case.path for case in cases), "--out", str(weights),
            "--records", str(args.folder / f"adapted.b{batch}.json"),
        ]  # fmt: skip
        for case in cases:
            shapes = case.options[1::2]
            line += [part for s in shapes for part in ("--input-shape", f"{case.path}:{s}")]
        line += ["--keep-noisy"] if args.keep_noisy else []
        adapt.adapt(build_parser().parse_args(line), lambda _: take_round())
    return weights


def _round(network: TimedNetwork) -> dict[str, Any]:
    """Time each operator of a network, and the network itself in between."""
    wait_until_idle()  # the process that ran the calibration program keeps a core busy for a while
    runs = int(np.clip(_RUNS_S / float(network.run_s(1)[0]), 3, 200))
    parts = min(runs, len(network.functions), _PARTS)
    found: dict[str, Any] = {"network": [], "operators": {}, "alone": {}}
    for functions in np.array_split(network.functions, parts):
        found["network"] += network.run_s(-(-runs // parts)).tolist()
        for name, seconds in network.inside_s().items():
            found["operators"].setdefault(name, []).append(seconds)
        for name in map(str, functions):
            found["alone"][name] = network.alone_s(name, _OPERATOR_RUNS).tolist()
    return found


def _mean_of(moments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return samples of one round, the mean over moments of the medians of each."""

    def mean(samples: Iterable[Sequence[float]]) -> list[float]:
        return [float(np.mean([np.median(each) for each in samples]))]

    found: dict[str, Any] = {"network": mean(moment["network"] for moment in moments)}
    for kind in ("operators", "alone"):
        names = moments[0][kind]
        found[kind] = {name: mean(moment[kind][name] for moment in moments) for name in names}
    return found


def _replayed(graph: OperatorGraph, rounds: Sequence[dict[str, Any]], kind: str) -> float:
    """Return what measured operators add up to, as a share of the network, of the median round."""
    shares = [
        replay(graph, _medians_over([samples], kind), QueueConfig()).latency_s
        / np.median(samples["network"])
        for samples in rounds
    ]
    return float(np.median(shares))


def _from_alone(
    forecast: NetworkForecast, device: DeviceSpec, rounds: Sequence[dict[str, Any]]
) -> float:
    """Return what operators that run again and again let expect, as `_replayed` does."""
    shares = [
        forecast.on(device, measured_s=_medians_over([samples], "alone")).latency_s
        / np.median(samples["network"])
        for samples in rounds
    ]
    return float(np.median(shares))


def _medians_over(rounds: Sequence[dict[str, Any]], kind: str) -> dict[str, float]:
    """Return the median seconds of each operator over some rounds."""
    return {
        name: float(np.median(np.concatenate([samples[kind][name] for samples in rounds])))
        for name in rounds[0][kind]
    }


if __name__ == "__main__":
    main()
