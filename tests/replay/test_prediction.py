"""Whole networks, predicted with the real TVM and the weights that come with the package."""

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvm_cdmpp import predict
from tvm_cdmpp.bridge import append_records, load_tvm, target_for
from tvm_cdmpp.devices import DeviceCalibration, Hardware, Levels, find_device
from tvm_cdmpp.errors import ConfigError, NetworkError, RecordError, UnknownDeviceError
from tvm_cdmpp.models import PROGRAM_START_S, TrainedPredictor, load_weights
from tvm_cdmpp.networks import Network, OwnFunction, extract_tasks, network_of_relay
from tvm_cdmpp.replay import (
    NetworkForecast,
    NetworkPrediction,
    QueueConfig,
    inside,
    joint_spread,
)
from tvm_cdmpp.replay.kept import Kept
from tvm_cdmpp.replay.physics import call_s
from tvm_cdmpp.replay.pricing import price_functions
from tvm_cdmpp.train import operator_of_dag

tvm = load_tvm()
relay = tvm.relay
CPU, GPU = "epyc-7452", "t4"


def chain(x: Any, size: int = 64) -> tuple[Any, dict[str, Any]]:
    """Two equal dense layers, a softmax, and what Ansor does not tune: a transpose."""
    generator = np.random.default_rng(0)
    params = {}
    for name in ("w0", "w1"):
        params[name] = tvm.nd.array(generator.random((size, size), dtype=np.float32))
        x = relay.nn.relu(relay.nn.dense(x, relay.var(name, shape=(size, size))))
    return relay.nn.softmax(relay.transpose(x)), params


def network(build: Callable[..., Any] = chain, shape: Any = (16, 64)) -> Network:
    x = relay.var("x", shape=shape)
    out, params = build(x)
    mod = tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(out), out))
    return network_of_relay("chain", mod, params)


@pytest.fixture(scope="module")
def forecast() -> NetworkForecast:
    return NetworkForecast(network())


def test_equal_operators_are_counted_as_often_as_they_occur(forecast: NetworkForecast) -> None:
    found = forecast.on(CPU)
    (dense,) = [task for task in found.tasks if "dense" in task.name]
    assert (dense.count, dense.operator_class, dense.basis) == (2, "matmul", "predicted")
    assert dense.shapes.startswith("16x64,")
    assert dense.flops == pytest.approx(2 * 16 * 64 * 64, rel=0.1)
    for device, start_s in ((CPU, 0.0), (GPU, 1e-5 + len(found.timeline.events) * 2e-6)):
        parts = forecast.on(device)
        assert parts.start_s == pytest.approx(start_s)
        work_s = sum(task.count * task.latency_s for task in parts.tasks)
        assert parts.latency_s == pytest.approx(work_s + parts.start_s)
    assert sum(task.share for task in found.tasks) == pytest.approx(1)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.interval_s[0] < found.latency_s < found.interval_s[1]
    assert found.peak_bytes > 2 * 4 * 64 * 64  # the weights


def test_what_ansor_does_not_tune_is_priced_and_named(forecast: NetworkForecast) -> None:
    found = forecast.on(CPU)
    others = [task for task in found.tasks if task.basis != "predicted"]
    assert [task.operator_class for task in others] == ["layout"]
    assert others[0].latency_s > 0
    assert any("analytic estimate" in remark for remark in found.remarks)


def test_measured_functions_take_the_place_of_predictions(forecast: NetworkForecast) -> None:
    plain = forecast.on(CPU)
    dense, other = sorted(plain.tasks, key=lambda task: "dense" not in task.name)[:2]
    found = forecast.on(CPU, measured_s={dense.function: 1e-3})
    by_function = {task.function: task for task in found.tasks}
    measured, kept = by_function[dense.function], by_function[other.function]
    assert (measured.basis, kept.basis) == ("measured", other.basis)
    assert measured.latency_s == pytest.approx(1e-3, rel=1e-3)  # all of it stays in the caches
    assert measured.interval_s[1] / measured.interval_s[0] < 1.6
    assert kept.latency_s == other.latency_s
    assert found.latency_s == pytest.approx(
        plain.latency_s + dense.count * (measured.latency_s - dense.latency_s)
    )
    assert any(remark.startswith("2 of 4 operators were measured") for remark in found.remarks)
    again = predict(network(), CPU, measured_s={dense.function: np.float32(1e-3)})
    assert again.latency_s == pytest.approx(found.latency_s, rel=1e-6)
    json.dumps(again.as_json())
    assert forecast.on(CPU, measured_s={}).latency_s == plain.latency_s


def test_where_all_is_measured_no_note_is_of_predictions(forecast: NetworkForecast) -> None:
    for device, added in ((CPU, "waits for what caches"), (GPU, "start-ups are added")):
        seconds = dict.fromkeys((task.function for task in forecast.on(device).tasks), 1e-5)
        found = forecast.on(device, measured_s=seconds)
        (remark,) = found.remarks
        assert remark.startswith("4 of 4 operators were measured by themselves; ")
        assert added in remark


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, 1e300, math.nan, True, "1", None])
def test_what_was_not_measured_is_refused(forecast: NetworkForecast, seconds: Any) -> None:
    function = forecast.on(CPU).tasks[0].function
    got = re.escape(f"finite seconds, as the median of what a timer returns; got {seconds!r}")
    with pytest.raises(ConfigError, match=got):
        forecast.on(CPU, measured_s={function: seconds})
    with pytest.raises(ConfigError, match="seconds by function"):
        forecast.on(CPU, measured_s=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"no such function. It has: .*{function}"):
        forecast.on(CPU, measured_s={"other": 1.0})


def test_waking_threads_takes_as_long_whatever_caches_keep() -> None:
    """Dense layers of 64 x 64 on many cores: hardly any work, and a wake-up for each."""
    device = replace(find_device(CPU), name="many", cores=64)
    (dense,) = [t for t in NetworkForecast(network()).on(device).tasks if "dense" in t.name]
    assert dense.latency_s > 1.5e-6


def test_threads_wake_as_they_did_while_the_weights_learned() -> None:
    device, start_s = replace(find_device(CPU), name="many", cores=64), []
    shipped = load_weights("shipped")
    assert isinstance(shipped, TrainedPredictor)
    forecast = NetworkForecast(network())
    for weights, wake_s in (("others", 3e-5), ("others", 9e-5), (shipped.origin, 3e-5)):
        levels = Levels(weights=weights, level=0.0, wake_s=9e-5)
        calibration = DeviceCalibration(levels=(levels,), wake_s=wake_s)
        found = forecast.on(replace(device, calibration=calibration))
        (dense,) = [t for t in found.tasks if "dense" in t.name]
        start_s.append(dense.latency_s)
    assert start_s[2] == start_s[1] > 1.1 * start_s[0]


def test_programs_take_less_in_a_network_that_caches_keep(forecast: NetworkForecast) -> None:
    device, predictor = replace(find_device(CPU), cores=1), load_weights("evaluation")
    lowered, graph = forecast._lower(target_for(device), device)
    moved = {operator.function: operator.moved_bytes for operator in graph.operators}
    small, large = (
        price_functions(lowered.programs, moved, device, Hardware(), predictor, network_bytes, {})
        for network_bytes in (1e5, 1e10)
    )
    for name, price in small.items():
        assert price.latency_s < large[name].latency_s
        alone = {name: lowered.programs[name]}
        by_itself = price_functions(
            alone, {name: moved[name]}, device, Hardware(), predictor, 1e5, {}
        )
        assert by_itself[name].latency_s == pytest.approx(price.latency_s, rel=1e-4)
    (dense,) = [name for name in small if "dense" in name]
    start_s = call_s(device, 1e10) - call_s(device, 1e5)
    assert small[dense].latency_s < 0.99 * (large[dense].latency_s - start_s)


def test_devices_differ_and_a_slower_one_never_helps(forecast: NetworkForecast) -> None:
    device = find_device(CPU)
    memory = replace(device, name="memory", bandwidth_bytes_per_s=1e9)
    clock = replace(device, name="clock", clock_hz=1e9)
    copy, slow_memory, slow_clock = (
        next(task for task in forecast.on(d).tasks if task.operator_class == "layout")
        for d in (device, memory, clock)
    )
    assert slow_memory.latency_s >= copy.latency_s
    assert slow_clock.latency_s > copy.latency_s
    on_gpu = forecast.on(GPU)
    assert (on_gpu.device, on_gpu.batch) == (GPU, 16)
    assert any(t.basis == "predicted" and t.operator_class == "matmul" for t in on_gpu.tasks)


def test_functions_of_nothing_take_a_call_in_a_network_that_stays_in_the_cache() -> None:
    def tiny(x: Any) -> tuple[Any, dict[str, Any]]:
        return relay.nn.softmax(relay.exp(x)), {}

    found = NetworkForecast(network(tiny, shape=(1, 5))).on(CPU)
    assert {task.basis for task in found.tasks} == {"predicted", "analytic estimate"}
    assert all(task.latency_s < 3e-7 for task in found.tasks)
    large = NetworkForecast(network(tiny, shape=(1, 5_000_000))).on(CPU)
    assert large.latency_s > 1e4 * found.latency_s


def test_a_small_function_wakes_threads_at_most_once() -> None:
    def dense(x: Any) -> tuple[Any, dict[str, Any]]:
        w = tvm.nd.array(np.ones((64, 128), np.float32))
        return relay.nn.relu(relay.nn.dense(x, relay.var("w", shape=(64, 128)))), {"w": w}

    forecast, device = NetworkForecast(network(dense, shape=(1, 128))), find_device(CPU)
    few, one = (
        forecast.on(replace(device, name=str(cores), cores=cores)).latency_s for cores in (2, 1)
    )
    assert one < 5e-6
    assert few < 5e-6  # a start for each of its leaves would be 12 us


def test_an_accelerator_says_what_it_is_predicted_as(forecast: NetworkForecast) -> None:
    assert any("as a GPU" in remark for remark in forecast.on("hl-100").remarks)


@pytest.mark.parametrize(("name", "said"), [("t4", True), (CPU, False)])
def test_untuned_networks_on_gpus_are_said_to_be_slow(
    forecast: NetworkForecast, name: str, said: bool
) -> None:
    assert any("fallbacks" in remark for remark in forecast.on(name).remarks) == said


def test_two_queues_run_branches_side_by_side() -> None:
    def branches(x: Any) -> Any:
        def branch(name: str) -> Any:
            return relay.nn.softmax(relay.nn.dense(x, relay.var(name, shape=(48, 64))))

        out = relay.Tuple([branch("a"), branch("b")])
        params = {n: tvm.nd.array(np.ones((48, 64), np.float32)) for n in ("a", "b")}
        return out, params

    made = network(branches)
    one = predict(made, CPU, queues=QueueConfig(queues=1))
    two = predict(made, CPU, queues=QueueConfig(queues=2))
    assert two.latency_s < one.latency_s
    assert predict(made, CPU, queues=2).latency_s == two.latency_s
    one, two = (
        predict(made, CPU, queues=QueueConfig(queues=n, operator_start_s=1.0)) for n in (1, 2)
    )
    assert one.start_s == two.start_s == len(two.timeline.events)
    assert two.latency_s < two.start_s < one.latency_s


def record(task: Any, *, failed: bool = False) -> tuple[Any, Any]:
    """One program of a task, and what it was measured to take."""
    options = {"sample_init_min_population": 4}
    policy = tvm.auto_scheduler.SketchPolicy(task, params=options, seed=1, verbose=0)
    measured = tvm.auto_scheduler.MeasureInput(task, next(iter(policy.sample_initial_population())))
    error = tvm.auto_scheduler.measure.MeasureErrorNo.RUNTIME_DEVICE if failed else 0
    latencies_s = [1e10] if failed else [1e-3]
    return measured, tvm.auto_scheduler.MeasureResult(latencies_s, error, "", 1.0, 1.0)


def test_each_kind_of_cpu_in_a_log_that_the_device_is_not_is_told(tmp_path: Path) -> None:
    made, log = network(), tmp_path / "log.json"
    for number, device in enumerate((CPU, "cortex-a72")):
        tasks, _ = extract_tasks(made, target_for(find_device(device)))
        measured, result = record(tasks[number])
        append_records(log, [measured], [result])
    forecast = NetworkForecast(made, log=log)
    for device, other in ((CPU, "aarch64"), ("cortex-a72", "x86_64")):
        remarks = [r for r in forecast.on(device).remarks if r.endswith("is not")]
        assert len(remarks) == 1
        assert remarks[0].startswith("some records of the log are of a search for llvm")
        assert other in remarks[0]


def test_a_log_of_other_cores_is_told(tmp_path: Path) -> None:
    made, log = network(), tmp_path / "log.json"
    device = find_device(CPU)
    tasks, _ = extract_tasks(made, target_for(device))
    append_records(log, *([each] for each in record(tasks[0])))
    forecast = NetworkForecast(made, log=log)
    smaller = replace(device, name="smaller", cores=device.cores // 2)
    assert not any("cores" in remark for remark in forecast.on(device).remarks)
    (told,) = (remark for remark in forecast.on(smaller).remarks if "cores" in remark)
    assert f"for {device.cores} cores, and smaller has {smaller.cores}" in told


@pytest.mark.parametrize("cost_s", [1e-300, 1e-13])
def test_a_log_with_an_impossible_cost_is_refused(tmp_path: Path, cost_s: float) -> None:
    made, log = network(), tmp_path / "log.json"
    tasks, _ = extract_tasks(made, target_for(find_device(CPU)))
    measured, _ = record(tasks[0])
    result = tvm.auto_scheduler.MeasureResult([cost_s], 0, "", 1.0, 1.0)
    append_records(log, [measured], [result])
    with pytest.raises(RecordError, match=r"Cannot use line 1 .* seconds above"):
        NetworkForecast(made, log=log).on(CPU)


def test_a_log_whose_programs_all_failed_is_told_as_such(tmp_path: Path) -> None:
    made, log = network(), tmp_path / "log.json"
    tasks, _ = extract_tasks(made, target_for(find_device(CPU)))
    for task in tasks:
        measured, result = record(task, failed=True)
        append_records(log, [measured], [result])
    with pytest.raises(RecordError, match="has 2 programs of chain at batch 16, and none of them"):
        NetworkForecast(made, log=log).on(CPU)


def test_a_log_gives_the_schedules_and_missing_tasks_are_counted(tmp_path: Path) -> None:
    made, target = network(), target_for(find_device(CPU))
    tasks, _ = extract_tasks(made, target)
    log = tmp_path / "log.json"
    policy = tvm.auto_scheduler.SketchPolicy(
        tasks[0], params={"sample_init_min_population": 4}, seed=1, verbose=0
    )
    states = list(policy.sample_initial_population())[:1]
    inputs = [tvm.auto_scheduler.MeasureInput(tasks[0], state) for state in states]
    result = tvm.auto_scheduler.MeasureResult([1e-3], 0, "", 1.0, 1.0)
    append_records(log, inputs, [result])
    forecast = NetworkForecast(made, log=log)
    found = forecast.on(CPU)
    assert found.num_tasks_without_record == len(tasks) - 1
    lowered, _ = forecast._lower(forecast._target(find_device(CPU)), find_device(CPU))
    assert "batch_matmul" in tasks[0].desc
    assert list(lowered.searched) == [t.function for t in found.tasks if "matmul" in t.name]
    assert set(map(operator_of_dag, lowered.searched.values())) == {"matmul"}  # a dense layer
    assert len(tasks) == 2
    assert any(remark.startswith("1 of 2 tasks have no record") for remark in found.remarks)
    assert NetworkForecast(made, log=str(log)).on(CPU).latency_s == found.latency_s
    on_arm = forecast.on("cortex-a72").remarks
    assert any("which cortex-a72 is not" in remark for remark in on_arm)
    assert not any("is not" in remark for remark in found.remarks)
    with pytest.raises(RecordError, match="no record for a gpu"):
        NetworkForecast(made, log=log).on(GPU)
    with pytest.raises(ConfigError, match="a log or trials"):
        NetworkForecast(made, log=log, trials=4)
    other = network(lambda x: chain(x, 48), shape=(16, 48))
    with pytest.raises(RecordError, match="is of a task of chain at batch 16, which has 2"):
        NetworkForecast(other, log=log).on(CPU)


def test_options_of_a_file_are_refused_beside_a_network() -> None:
    with pytest.raises(ConfigError, match="batch: these are for a name or a file"):
        NetworkForecast(network(), batch=4)


def test_the_best_predicted_schedules_are_better_than_tvms_own() -> None:
    def matmul_s(found: Any) -> float:
        return float(
            sum(t.count * t.latency_s for t in found.tasks if t.operator_class == "matmul")
        )

    made = network(lambda x: chain(x, 256), shape=(128, 256))
    best = NetworkForecast(made, trials=4).on(CPU)
    assert "best predicted" in best.schedules
    assert matmul_s(best) < matmul_s(NetworkForecast(made).on(CPU))


def test_a_library_call_is_priced_by_what_it_moves() -> None:
    def custom(x: Any) -> Any:
        return relay.sort(x), {}

    found = predict(network(custom), CPU)
    assert [(t.basis, t.operator_class) for t in found.tasks] == [("moved bytes", "other")]
    device = find_device(CPU)
    moved_s = 2 * 16 * 64 * 4 / device.bandwidth_bytes_per_s
    assert found.tasks[0].latency_s == pytest.approx(PROGRAM_START_S + moved_s)
    low, high = found.tasks[0].interval_s
    assert high / low > 100  # a sort takes far longer than that
    assert any("bytes they move" in remark for remark in found.remarks)


def test_library_calls_that_no_record_has_are_added_but_for_weights_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `erf` in a product: its cycles, shared out among cores as the product is."""

    def erf(x: Any) -> tuple[Any, dict[str, Any]]:
        weight = tvm.nd.array(np.ones((64, 64), "float32"))
        return relay.erf(relay.nn.dense(x, relay.var("w", shape=(64, 64)))), {"w": weight}

    forecast, device = NetworkForecast(network(erf, (4096, 64))), find_device(CPU)
    (added,) = (t.latency_s for t in forecast.on(device).tasks if t.basis == "predicted")
    monkeypatch.setattr(TrainedPredictor, "adapted_to", device.name)
    (learned,) = (t.latency_s for t in forecast.on(device).tasks if t.basis == "predicted")
    least_s = 4096 * 64 * 12.0 / device.clock_hz / device.cores
    assert 0.99 * least_s < added - learned < 4 * least_s  # not all cores may be busy


def test_depthwise_convolutions_are_told_apart_where_their_names_do_not() -> None:
    def depthwise(x: Any) -> tuple[Any, dict[str, Any]]:
        weight = tvm.nd.array(np.ones((8, 1, 3, 3), "float32"))
        w = relay.var("w", shape=(8, 1, 3, 3))
        return relay.nn.conv2d(x, w, padding=(1, 1), groups=8, channels=8, kernel_size=(3, 3)), {
            "w": weight
        }

    found = NetworkForecast(network(depthwise, (1, 8, 16, 16))).on(GPU)
    (task,) = found.tasks
    assert "depthwise" not in task.function
    assert task.operator_class == "depthwise conv2d"


def test_other_weights_price_what_was_lowered_once(forecast: NetworkForecast) -> None:
    other = forecast.with_weights("evaluation")
    assert (
        other.on(CPU).latency_s
        == NetworkForecast(network(), weights="evaluation").on(CPU).latency_s
    )
    assert other.on(CPU).latency_s != forecast.on(CPU).latency_s
    assert other.on(CPU).timeline.graph is forecast.on(CPU).timeline.graph


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(UnknownDeviceError, match="no-such-device"):
        predict("mlp", "no-such-device")
    with pytest.raises(ConfigError, match="device must be one DeviceSpec or name; got \\["):
        predict(network(), ["t4", "a10"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="device must be one DeviceSpec or name; got 't4,a10'"):
        predict(network(), "t4,a10")
    with pytest.raises(ConfigError, match="must not be negative"):
        NetworkForecast(network(), trials=-1)
    with pytest.raises(NetworkError, match="a size known only when it runs"):
        network(shape=(relay.Any(), 64))
    with pytest.raises(NetworkError, match="chain has no operator"):
        predict(network(lambda x: (x, {})), CPU)
    with pytest.raises(RecordError, match=r"missing\.json"):
        predict(network(), CPU, log=Path("missing.json"))
    with pytest.raises(RecordError, match=r"holds no measure record: it is empty"):
        predict(network(), CPU, log=Path(os.devnull))


def test_what_tvms_schedules_raise_names_the_network() -> None:
    def dilated(x: Any) -> tuple[Any, dict[str, Any]]:
        w = relay.var("w", shape=(8, 8, 3, 3))
        weight = tvm.nd.array(np.ones((8, 8, 3, 3), "float32"))
        options = {"channels": 8, "kernel_size": (3, 3), "dilation": (2, 2)}
        return relay.nn.conv2d_transpose(x, w, **options), {"w": weight}

    with pytest.raises(NetworkError, match=r"cannot compile chain for llvm .*dilat"):
        predict(network(dilated, (1, 8, 16, 16)), CPU)


def test_the_batch_is_what_was_asked_for(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "m"], ["y"])], "g",
        [helper.make_tensor_value_info("m", kind, [4]),
         helper.make_tensor_value_info("x", kind, ["N", 4])],
        [helper.make_tensor_value_info("y", kind, ["N", 4])],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "n.onnx")
    found = [predict(tmp_path / "n.onnx", CPU, batch=batch) for batch in (2, 16)]
    assert [each.batch for each in found] == [2, 16]


def test_a_cpu_without_vectors_is_priced() -> None:
    scalar = replace(find_device(CPU), name="scalar", simd_bytes=4)
    assert predict("mlp", scalar).latency_s > predict("mlp", CPU).latency_s


def test_the_spread_of_a_sum_lies_between_independent_and_equal_errors() -> None:
    parts = [(1.0, 0.2, 0.0)] * 4
    assert joint_spread(parts, 0.0) == pytest.approx(0.1)
    assert joint_spread(parts, 1.0) == pytest.approx(0.2)
    assert joint_spread(parts, 0.5) == pytest.approx(math.sqrt(0.5 * 0.04 + 0.5 * 0.01))
    assert joint_spread([(1.0, 0.3, 0.0)]) == pytest.approx(0.3)
    # Of what is wrong about the level nothing averages out.
    assert joint_spread([(1.0, 0.0, 0.5)] * 4, 0.0) == pytest.approx(0.5)
    assert joint_spread([(1.0, 0.2, 0.5)] * 4, 0.0) == pytest.approx(math.hypot(0.1, 0.5))
    assert joint_spread([(1.0, 0.0, 0.5), (1.0, 0.0, 0.0)], 0.0) == pytest.approx(0.25)


def test_a_level_that_nobody_measured_makes_intervals_wider(forecast: NetworkForecast) -> None:
    unknown, predictor = find_device(CPU), load_weights("shipped")
    assert isinstance(predictor, TrainedPredictor)
    measured = replace(
        unknown,
        calibration=DeviceCalibration(levels=(Levels(weights=predictor.origin, level=0.0),)),
    )
    before, after = (_widths(forecast.on(device)) for device in (unknown, measured))
    assert before.keys() == after.keys()
    assert all(before[name] >= after[name] for name in after)
    assert before["network"] > 1.3 * after["network"]
    known = find_device("x86-24t")
    calibrated = replace(known, calibration=measured.calibration)
    assert _widths(forecast.on(known)) == _widths(forecast.on(calibrated))


def _widths(found: NetworkPrediction) -> dict[str, float]:
    """Return how many times its low end the high end of each interval is."""
    parts = {task.function: task.interval_s for task in found.tasks}
    return {
        name: high / low for name, (low, high) in {**parts, "network": found.interval_s}.items()
    }


def test_what_was_measured_of_an_operator_counts_for_it(forecast: NetworkForecast) -> None:
    """On a GPU, where nothing is added for being inside of a network."""
    gpu, predictor = find_device(GPU), load_weights("shipped")
    assert isinstance(predictor, TrainedPredictor)
    levels = Levels(
        weights=predictor.origin, level=0.25, operators={"matmul": 1.0},
        own_level=0.5, own_operators={"matmul": 2.0},
    )  # fmt: skip
    measured = replace(gpu, calibration=DeviceCalibration(levels=(levels,)))
    before, after = ({t.function: t for t in forecast.on(d).tasks} for d in (gpu, measured))

    def expected(task: Any, matmul: float, others: float) -> float:
        if task.basis != "predicted":
            return 0.0
        return matmul if task.operator_class == "matmul" else others

    for function, task in before.items():
        factor = after[function].latency_s / task.latency_s
        assert math.log(factor) == pytest.approx(expected(task, 2.0, 0.5), abs=1e-3)
    assert any(
        f"corrected by what was measured on {GPU}" in remark
        for remark in forecast.on(measured).remarks
    )
    # The same with schedules of a search.
    lowered, graph = forecast._lower(target_for(gpu), gpu)
    moved = {operator.function: operator.moved_bytes for operator in graph.operators}
    operators = {name: "matmul" if "dense" in name else "softmax" for name in moved}
    searched = price_functions(
        lowered.programs, moved, measured, Hardware(), predictor, 1e6, operators
    )
    plain = price_functions(lowered.programs, moved, gpu, Hardware(), predictor, 1e6, {})
    for function, task in before.items():
        factor = searched[function].latency_s / plain[function].latency_s
        assert math.log(factor) == pytest.approx(expected(task, 1.0, 0.25), abs=1e-3)


def test_a_level_counts_for_what_stays_in_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the root of the share, which is a half here."""
    predictor, device = load_weights("shipped"), find_device(CPU)
    assert isinstance(predictor, TrainedPredictor)
    slower = Levels(weights=predictor.origin, level=math.log(16))
    measured = replace(device, calibration=DeviceCalibration(levels=(slower,)))
    monkeypatch.setattr(inside, "kept_work", lambda *_: Kept(1e-5, 4e-5))
    large = NetworkForecast(network(lambda x: chain(x, 512), (64, 512)))
    (before, after) = (
        next(task.latency_s for task in large.on(d).tasks if "dense" in task.name)
        for d in (device, measured)
    )
    assert 3.5 < after / before < 9.0  # starts grow by all of it


def test_what_is_known_of_a_function_prices_it(
    forecast: NetworkForecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {task.function: task for task in forecast.on(GPU).tasks}
    monkeypatch.setattr(OwnFunction, "_level", lambda self, device: math.log(2.0))
    for task in forecast.on(GPU).tasks:
        factor = 2.0 if task.basis == "predicted" else 1.0
        assert task.latency_s == pytest.approx(factor * before[task.function].latency_s, rel=1e-3)
