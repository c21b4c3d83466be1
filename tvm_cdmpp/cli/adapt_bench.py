"""What `tvm-cdmpp adapt` measures programs with, and what it trains on beside them."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli import show
from tvm_cdmpp.cli.data_collect import device_to_measure, parse_remote
from tvm_cdmpp.cli.inputs import check_gpu_is_here, inputs_of
from tvm_cdmpp.cli.messages import divert_native_messages, messages_file
from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.devices import DeviceSpec
    from tvm_cdmpp.measure import RemoteDevices
    from tvm_cdmpp.models import Ints, TrainedPredictor, TrainingRows
    from tvm_cdmpp.networks import Network, OwnFunction
    from tvm_cdmpp.train import Bench, OnboardSettings, StoredFeatures

_CANDIDATES_PER_RECORD = 2
_MOST_CANDIDATES_PER_TASK = 64


@contextmanager
def recorded(args: argparse.Namespace) -> "Iterator[Bench]":
    """Open a bench that looks up what was measured."""
    if args.rpc or args.key:
        raise ConfigError("--from-store measures nothing, so --rpc and --key have no meaning there")
    if args.input_shape or args.input_dtype or args.batch:
        raise ConfigError(
            "--input-shape, --input-dtype and --input-batch are for model files whose programs are "
            "measured; with --from-store, recorded ones are taken"
        )
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.files import locked
    from tvm_cdmpp.train import RecordedBench, check_target, read_candidates

    store, networks = RecordStore.open(args.from_store), names_of_networks(args)
    check_target(store, args.device, networks)
    lock = args.records.with_name(f".{args.records.name}.lock")
    with locked(lock, f"a search that writes {args.records}"):
        found, rows = read_candidates(store, _features_of(store), args.device, networks)
        candidates = found.uncalibrated()  # those were measured on another day, if not elsewhere
        yield RecordedBench(store, candidates, rows, args.records)


def _features_of(store: "RecordStore") -> "StoredFeatures":
    """Return what the predictor sees of a store's programs; say so where it must be made first."""
    from tvm_cdmpp.train import find_features, load_features

    if (found := find_features(store)) is not None:
        return found
    title = f"preparing all programs of {store.path}, once (about a minute per million)"
    with show.show_bar(title, len(store)) as on_rows:
        return load_features(store, on_rows)


@contextmanager
def live(args: argparse.Namespace, settings: "OnboardSettings") -> "Iterator[Bench]":
    """Open a bench that builds and runs programs, here or on remote devices."""
    networks = names_of_networks(args)
    if not networks:
        raise ConfigError(
            "--networks must name what to measure programs of, as in resnet-18,model.onnx; got "
            "none. With --from-store, recorded programs are taken instead."
        )
    remote = parse_remote(args.rpc, args.key, args.target)
    if remote is None:
        check_gpu_is_here(args.target)
    options_of = inputs_of(args, networks)
    from tvm_cdmpp.bridge import parse_target
    from tvm_cdmpp.measure import (
        BenchConfig,
        CalibrationConfig,
        LiveBench,
        MeasureOptions,
        MeasureSession,
    )
    from tvm_cdmpp.networks import check_libraries, load_network
    from tvm_cdmpp.search import CDMPPModel, first_candidates
    from tvm_cdmpp.workloads import write_workloads

    target = parse_target(args.target)
    if remote is None:
        check_libraries(target)
    device = _device(args.device, target, remote)
    model = CDMPPModel(device=device, weights=args.weights)
    if remote is not None:
        remote.count()
    console = show.stderr_console()
    console.print(f"target: {target}", soft_wrap=True, markup=False)
    loaded = [
        load_network(name, **options_of(name), batch_option="--input-batch") for name in networks
    ]
    tasks, functions, calls = _work_of(loaded, target)
    wanted = -(-_CANDIDATES_PER_RECORD * settings.budget // len(tasks))
    per_task = min(max(wanted, settings.programs_per_task), _MOST_CANDIDATES_PER_TASK)
    attempts = 1 if args.keep_noisy else CalibrationConfig().attempts
    config = BenchConfig(
        calibration=CalibrationConfig(keep_noisy=args.keep_noisy, attempts=attempts),
        measure=MeasureOptions(remote=remote),
    )
    with MeasureSession() as session:
        session.hold(args.records)
        with show.show_bar("candidates of tasks", len(tasks)) as on_task:
            bench = LiveBench(
                tasks,
                device,
                lambda task, number: first_candidates(task, model, per_task, seed=number),
                config,
                functions,
                log=args.records,
                on_task=on_task,
            )
        bench.calls = calls
        write_workloads(args.records, tasks)
        for line in _describe_start(bench, len(tasks)):
            console.print(line, soft_wrap=True, markup=False)
        with divert_native_messages(messages_file(args.records), console.print):
            yield bench
        if bench.batches and args.keep_noisy:
            marked = f"they count, and are marked in {args.records}.calibration.jsonl"
            console.print(
                f"{bench.noisy_batches} of {bench.batches} batches were measured on a noisy "
                f"machine{f': {marked}' if bench.noisy_batches else ''}",
                soft_wrap=True,
                markup=False,
            )


def _work_of(
    networks: "Sequence[Network]", target: Any
) -> "tuple[list[Any], list[OwnFunction], Ints]":
    """Return the distinct tasks of networks, their functions with TVM's own schedules, and calls.

    Calls are how often each network runs each of the tasks and, after these, functions.
    """
    import numpy as np

    from tvm_cdmpp.devices import Hardware
    from tvm_cdmpp.measure import distinct_tasks
    from tvm_cdmpp.networks import extract_tasks, own_functions

    of_networks = [extract_tasks(network, target) for network in networks]
    tasks = distinct_tasks([task for found, _ in of_networks for task in found])
    cores = Hardware.of(tasks[0].hardware_params).cores
    functions: dict[str, OwnFunction] = {}
    found_calls: list[list[tuple[str, int]]] = []
    with show.show_bar("functions of networks", len(networks)) as on_network:
        for number, (network, (found, counts)) in enumerate(
            zip(networks, of_networks, strict=True), start=1
        ):
            own = own_functions(network, target, cores)
            functions |= {function.key: function for function in own}
            of_tasks = [
                (str(task.workload_key), int(n)) for task, n in zip(found, counts, strict=True)
            ]
            found_calls.append(of_tasks + [(function.key, function.calls) for function in own])
            on_network(number)
    keys = [*(str(task.workload_key) for task in tasks), *functions]
    places = {key: place for place, key in enumerate(keys)}
    calls = np.zeros((len(networks), len(keys)), np.int64)
    for network_number, pairs in enumerate(found_calls):
        for key, number in pairs:
            calls[network_number, places[key]] += number
    return tasks, list(functions.values()), calls


def _device(name: str, target: Any, remote: "RemoteDevices | None") -> "DeviceSpec":
    """Return the device of a name: a known one, or this machine as `device detect` calls it."""
    from tvm_cdmpp.bridge import check_target_runs_here, device_of
    from tvm_cdmpp.devices import find_device

    if remote is None:
        check_target_runs_here(target)
        here = device_of(target)
        if here.name == name:
            return here
    find_device(name)
    device = device_to_measure(name, target, remote)
    assert device is not None  # it was named
    return device


def _describe_start(bench: Any, num_tasks: int) -> list[str]:
    from tvm_cdmpp.measure import own_records_file

    report = bench.log_report
    measured_own = int(bench.measured.own.sum())
    state = f"continues with its {report.num_valid} records" if report.num_valid else "is new"
    if measured_own:
        records = f"{report.num_valid} records and {measured_own} of TVM's own schedules"
        state = f"continues with its {records}: {len(bench.measured)} records in all"
    num_own = int(bench.candidates.own.sum())
    lines = [
        f"{num_tasks} tasks, {len(bench.candidates) - num_own} candidates, {num_own} functions "
        f"with TVM's own schedules; the log {report.path} {state}",
        *show.describe_log(report),
    ]
    if bench.unusable:
        lines.append(f"{bench.unusable} programs could not be described and are left out")
    if bench.torn:
        lines.append(
            f"{bench.torn} lines of {own_records_file(report.path)} are torn, as by a kill, and "
            "are left out; their functions may be measured again"
        )
    return lines


def names_of_networks(args: argparse.Namespace) -> tuple[str, ...]:
    """Read `--networks`."""
    return tuple(filter(None, (name.strip() for name in args.networks.split(","))))


def read_beside(
    args: argparse.Namespace, bench: "Bench", predictor: "TrainedPredictor"
) -> "TrainingRows | None":
    """Return rows of other devices to train on beside; None without a store of them."""
    if args.sources is None:
        return None
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.train import read_sources

    store = RecordStore.open(args.sources)
    features = _features_of(store)
    kind = "cpu" if bench.candidates.devices[0].kind == "cpu" else "gpu"
    split = predictor.about.get("split")
    return read_sources(store, features, kind=kind, without=args.device, split=split)
