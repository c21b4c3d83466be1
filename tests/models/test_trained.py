"""The predictor that is trained ahead: sums of leaves, and what it learns in a search."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.programs import random_batch
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.ast.schema import COLUMN
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError, ConfigError
from tvm_cdmpp.models.adaptation import AdaptConfig, thin
from tvm_cdmpp.models.additive import AdditiveConfig, AdditiveNetwork
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.checkpoint import LARGEST_WEIGHT, Content, write_checkpoint
from tvm_cdmpp.models.dropout import Dropout
from tvm_cdmpp.models.leaves import make_leaves, stack_devices
from tvm_cdmpp.models.rows import Machine, TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor, round_weights
from tvm_cdmpp.models.weights import load_weights

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)
GPU = DeviceSpec(name="gpu", kind="gpu", cores=80)


@pytest.fixture
def predictor() -> TrainedPredictor:
    """A predictor whose corrections are large, as if it had been trained."""
    predictor = TrainedPredictor.untrained(AdditiveConfig(), seed=3)
    generator = torch.Generator().manual_seed(0)
    for expert in predictor.experts.values():
        for layer in (expert.network.correction, expert.network.about_program):
            torch.nn.init.normal_(layer.weight, std=0.4, generator=generator)
    return predictor


def rows_of(batch: CompactASTBatch, latencies_s: np.ndarray, num_tasks: int = 1) -> TrainingRows:
    return TrainingRows.on(DEVICE, batch, latencies_s, np.arange(len(batch)) % num_tasks)


def test_untrained_is_the_analytic_estimate() -> None:
    batch = random_batch(100)
    found = TrainedPredictor.untrained(AdditiveConfig(), 0).predict(batch, DEVICE)
    np.testing.assert_allclose(found.latency_s, estimate_latency_s(batch, DEVICE), rtol=1e-4)


def test_without_the_analytic_base_all_leaves_start_alike() -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(analytic_base=False), 0)
    found = predictor.predict(random_batch(20), DEVICE)
    assert found.leaf_s is not None
    np.testing.assert_allclose(found.leaf_s, 1e-5, rtol=1e-5)
    # The farthest that corrections reach: from a nanosecond to seconds.
    network = predictor.expert(DEVICE).network
    for sign, seconds in ((-1, 1e-10), (1, 1.0)):
        torch.nn.init.constant_(network.correction.bias, 1e3 * sign)
        with torch.inference_mode():
            reached = network(make_leaves(random_batch(3), DEVICE)).log_leaf_s
        assert (sign * (reached - np.log(seconds)) > 0).all()


def test_leaves_and_the_start_make_the_latency(predictor: TrainedPredictor) -> None:
    batch = random_batch(60)
    found = predictor.predict(batch, DEVICE)
    assert np.log(found.latency_s / estimate_latency_s(batch, DEVICE)).std() > 0.05
    assert found.leaf_s is not None
    sums = np.add.reduceat(found.leaf_s, batch.offsets[:-1])
    np.testing.assert_allclose(found.latency_s, sums + 5e-7, rtol=1e-4)


def test_twice_the_rates_is_half_the_time(predictor: TrainedPredictor) -> None:
    """Whatever was learned: the clock and the bandwidth only say how long a cycle is."""
    batch = random_batch(60)
    batch = replace(batch, unscaled=None)
    # Threads start in no fewer microseconds, so no loop is parallel.
    batch.vectors[:, COLUMN["parallel_extent"]] = 1.0
    fast = replace(DEVICE, clock_hz=2 * DEVICE.clock_hz,
                   bandwidth_bytes_per_s=2 * DEVICE.bandwidth_bytes_per_s)  # fmt: skip
    slow_s, fast_s = (predictor.predict(batch, device).latency_s for device in (DEVICE, fast))
    np.testing.assert_allclose(slow_s, 2 * fast_s, rtol=1e-4)


def _device_network(
    references: list[DeviceSpec], known: Sequence[DeviceSpec] = ()
) -> AdditiveNetwork:
    torch.manual_seed(0)
    network = AdditiveNetwork(AdditiveConfig()).eval()
    torch.nn.init.normal_(network.correction.weight)
    torch.nn.init.normal_(network.start.weight)
    network.fit_inputs(make_leaves(random_batch(20), DEVICE))
    network.know(stack_devices([*references, *known]), stack_devices(references))
    return network


def _log_latency(network: AdditiveNetwork, device: DeviceSpec) -> torch.Tensor:
    """Predict programs whose inputs do not depend on the device."""
    leaves = make_leaves(random_batch(20), DEVICE)
    vectors = stack_devices([device]).expand(len(leaves.counts), -1)
    with torch.no_grad():
        found: torch.Tensor = network(replace(leaves, device=vectors)).log_latency
    return found


def test_an_unknown_device_counts_as_the_nearest_known_one() -> None:
    known = [replace(DEVICE, cores=cores) for cores in (4, 64)]
    network = _device_network(known)
    few, many = (_log_latency(network, device) for device in known)
    assert not torch.allclose(few, many)
    for cores, expected in ((2, few), (8, few), (40, many), (200, many)):
        torch.testing.assert_close(_log_latency(network, replace(DEVICE, cores=cores)), expected)
    larger = replace(DEVICE, cores=64, l2_bytes=2**24)
    torch.testing.assert_close(_log_latency(network, larger), many)


def test_a_known_device_counts_as_itself_and_stands_for_no_other() -> None:
    references = [replace(DEVICE, cores=cores) for cores in (4, 64)]
    some = replace(DEVICE, cores=16)
    network = _device_network(references, [some])
    few, many, own = (_log_latency(network, device) for device in (*references, some))
    assert not torch.allclose(own, few)
    assert not torch.allclose(own, many)
    torch.testing.assert_close(_log_latency(network, replace(some, cores=15)), few)


def test_the_width_of_vectors_comes_first() -> None:
    wide = replace(DEVICE, cores=4, simd_bytes=2 * DEVICE.simd_bytes)
    network = _device_network([replace(DEVICE, cores=64), wide])
    torch.testing.assert_close(
        _log_latency(network, replace(DEVICE, cores=4)),
        _log_latency(network, replace(DEVICE, cores=64)),
    )


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_device_that_is_told_apart_starts_as_what_it_counted_as(others: int) -> None:
    known = [replace(DEVICE, cores=4)]
    known += [replace(DEVICE, cores=64), replace(DEVICE, l2_bytes=2**24, cores=64)][:others]
    network = _device_network(known)
    new = replace(DEVICE, cores=2, bandwidth_bytes_per_s=1e11)
    before = [_log_latency(network, device) for device in (*known, new)]
    network.tell_apart(new)
    network.tell_apart(new)  # nothing new
    assert len(network.references) == len(known)
    assert len(network.known_devices) == len(known) + 1
    for device, expected in zip((*known, new), before, strict=True):
        torch.testing.assert_close(_log_latency(network, device), expected)
    torch.nn.init.normal_(network.device.weight)
    assert not torch.allclose(_log_latency(network, new), _log_latency(network, known[0]))


def test_a_device_between_known_ones_is_told_apart() -> None:
    known = [replace(DEVICE, cores=cores) for cores in (4, 64)]
    network = _device_network(known)
    ends = [_log_latency(network, device) for device in known]
    between = replace(DEVICE, cores=16, name="between")
    network.tell_apart(between)
    for device, expected in zip(known, ends, strict=True):
        torch.testing.assert_close(_log_latency(network, device), expected)
    assert torch.isfinite(_log_latency(network, between)).all()


def test_weights_of_earlier_versions_know_no_devices(
    predictor: TrainedPredictor, tmp_path: Path
) -> None:
    batch = random_batch(5)
    rows = rows_of(batch, np.linspace(1e-5, 1e-4, 5))
    predictor.fit(rows)
    content = predictor.content()
    ours = ("known_devices", "references")
    arrays = {name: v for name, v in content.arrays.items() if not name.endswith(ours)}
    arrays["cpu.network.device_low"] = np.zeros(9, np.float32)
    write_checkpoint(tmp_path / "w.safetensors", Content(content.settings, arrays))
    found = TrainedPredictor.load(tmp_path / "w.safetensors")
    for one, other in ((found, predictor), (found.ahead(), predictor.ahead())):
        np.testing.assert_array_equal(
            one.predict(batch, DEVICE).latency_s, other.predict(batch, DEVICE).latency_s
        )
    found.fit(rows)


def test_corrections_reach_what_the_estimate_is_off_by() -> None:
    """That of GPUs is too slow by up to e^9, and a bound near that would leave its mark."""
    network = AdditiveNetwork(AdditiveConfig()).eval()
    leaves = make_leaves(random_batch(5), GPU)
    with torch.no_grad():
        before = network(leaves).log_leaf_s
        network.correction.bias.fill_(-11.0)
        after = network(leaves).log_leaf_s
    assert (after - before < -8.5).all()


def test_weights_of_earlier_versions_keep_their_bound(tmp_path: Path) -> None:
    predictor = TrainedPredictor.untrained(AdditiveConfig(largest_correction=6.0), seed=3)
    for expert in predictor.experts.values():
        torch.nn.init.normal_(expert.network.correction.weight)
    content = predictor.content()
    for settings in content.settings["experts"].values():
        del settings["config"]["largest_correction"]
    write_checkpoint(tmp_path / "w.safetensors", content)
    batch = random_batch(5)
    np.testing.assert_array_equal(
        TrainedPredictor.load(tmp_path / "w.safetensors").predict(batch, GPU).latency_s,
        predictor.predict(batch, GPU).latency_s,
    )
    with pytest.raises(ConfigError, match="largest_correction must be above 0"):
        AdditiveConfig(largest_correction=0.0)


def test_company_changes_nothing(predictor: TrainedPredictor) -> None:
    """However programs come, scoring takes them by their size, some at a time."""
    batch = random_batch(40)
    assert len(set(batch.leaf_counts)) > 1
    network = predictor.expert(DEVICE).network
    with torch.inference_mode():
        together = network(make_leaves(batch, DEVICE))
    found = predictor.predict(batch, DEVICE)
    np.testing.assert_allclose(np.exp(together.log_latency.numpy()), found.latency_s, rtol=1e-4)
    assert found.leaf_s is not None
    np.testing.assert_allclose(np.exp(together.log_leaf_s.numpy()), found.leaf_s, rtol=1e-4)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("chunk_leaves", [1, 7, 64])
def test_chunks_change_nothing(
    predictor: TrainedPredictor,
    monkeypatch: pytest.MonkeyPatch,
    chunk_leaves: int,
    num_threads: int,
) -> None:
    """However many are prepared together, and of them scored at once, and by how many threads."""
    batch = random_batch(60)
    whole = predictor.predict(batch, DEVICE)
    monkeypatch.setattr("tvm_cdmpp.models.chunks._CHUNK_LEAVES", chunk_leaves)
    monkeypatch.setattr("tvm_cdmpp.models.trained._CHUNKS_PREPARED", 3)
    found = predictor.predict(batch, DEVICE, num_threads=num_threads)
    for name in ("latency_s", "spread", "leaf_s"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-4)


def test_without_gradients_the_network_says_the_same(predictor: TrainedPredictor) -> None:
    """There it works in place."""
    network, leaves = predictor.expert(DEVICE).network, make_leaves(random_batch(40), DEVICE)
    learning = network(leaves)
    for _ in range(2):
        with torch.no_grad():
            scoring = network(leaves)
        for name in ("log_latency", "log_leaf_s", "log_spread", "runs", "features"):
            torch.testing.assert_close(
                getattr(scoring, name), getattr(learning, name), rtol=1e-4, atol=1e-5
            )


def test_no_programs_have_no_latencies(predictor: TrainedPredictor) -> None:
    none = random_batch(2).take(np.zeros(0, np.int64))
    found = predictor.expert(DEVICE).network(make_leaves(none, DEVICE))
    assert found.log_latency.shape == found.log_leaf_s.shape == (0,)


def test_features_are_the_gradient_of_the_last_layer(predictor: TrainedPredictor) -> None:
    network = predictor.expert(DEVICE).network
    found = network(make_leaves(random_batch(1), DEVICE))
    (gradient,) = torch.autograd.grad(
        found.log_latency.sum(), network.correction.weight, retain_graph=True
    )
    np.testing.assert_allclose(gradient[0], found.features[0].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_is_that_of_pytorch(share: float) -> None:
    dropout, values = Dropout(share), torch.ones(400, 501, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = dropout(values)
        kept = found != 0
        assert (found[kept] - 1 / (1 - share)).abs().max() < 1e-4
        assert kept.float().mean() == pytest.approx(1 - share, abs=3e-3)
        # Neighbours, which one integer decides over, are independent.
        for apart in (1, 2, 3):
            both = (kept.flatten()[:-apart] & kept.flatten()[apart:]).float().mean()
            assert both == pytest.approx((1 - share) ** 2, abs=5e-3)
        (gradient,) = torch.autograd.grad(found.sum(), values)
        assert torch.equal(gradient, found)
        assert not torch.equal(dropout(values), found)
        torch.manual_seed(0)
        assert torch.equal(dropout(values), found)
    assert dropout.eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_a_level_is_learned_from_few_programs(predictor: TrainedPredictor) -> None:
    batch = random_batch(200)
    before = predictor.predict(batch, DEVICE).latency_s
    measured = 5.0 * before
    predictor.fit(rows_of(batch.take(np.arange(8)), measured[:8]))
    after = predictor.predict(batch, DEVICE).latency_s
    assert np.abs(np.log(after / measured)).max() < 0.5 < np.log(5.0)
    assert predictor.expert(GPU).ahead is None, "nothing was measured there"


def test_an_order_is_learned_and_what_was_known_stays(predictor: TrainedPredictor) -> None:
    """What the network has wrong is found again in programs that were not measured."""
    batch = random_batch(400)
    vectorized = batch.vectors[batch.offsets[:-1] + 1, COLUMN["is_vectorized"]] > 0.5
    known = copy.deepcopy(predictor.expert(DEVICE).network.state_dict())
    before = predictor.predict(batch, DEVICE).latency_s
    measured = before * np.where(vectorized, 1.5, 0.7)
    rows = rows_of(batch.take(np.arange(200)), measured[:200], num_tasks=3)
    for seed in range(5):
        predictor.fit(rows, seed=seed)
    rest = np.arange(200, 400)
    after = predictor.predict(batch.take(rest), DEVICE).latency_s
    error = np.log(after / measured[rest]).std()
    assert error < 0.5 * np.log(before[rest] / measured[rest]).std()
    ahead = predictor.expert(DEVICE).ahead
    assert ahead is not None
    assert all(torch.equal(ahead[name], weight) for name, weight in known.items())


@pytest.mark.parametrize("programs", [5, 200])  # as given; in order, filled up
@pytest.mark.parametrize("layers", [1, 2])
def test_leaves_are_encoded_once_where_the_last_layer_learns(programs: int, layers: int) -> None:
    torch.manual_seed(0)
    network = AdditiveNetwork(AdditiveConfig(layers=layers)).eval()
    torch.nn.init.normal_(network.correction.weight)
    leaves = make_leaves(random_batch(programs), DEVICE)
    assert (leaves.layout.programs is None) == (programs == 5)
    with torch.no_grad():
        encoded = network.encode(leaves)
    known = encoded.encoded
    expected, found = network(leaves), network(encoded)
    torch.testing.assert_close(found.log_latency, expected.log_latency)
    torch.testing.assert_close(found.log_leaf_s, expected.log_leaf_s)
    # What is encoded depends on the other weights, and on these alone.
    learns = network.learns_last()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            before = weight.clone()
            weight.add_(torch.rand_like(weight))
            changed = network.encode(leaves).encoded
            assert known is not None and changed is not None
            assert torch.equal(changed, known) == (name in learns), name
            weight.copy_(before)


def test_in_a_search_the_last_layer_learns(predictor: TrainedPredictor) -> None:
    network = predictor.expert(DEVICE).network
    before = copy.deepcopy(network.state_dict())
    batch = random_batch(48)
    predictor.fit(rows_of(batch, 1e-4 * np.exp(np.sin(np.arange(48)))))
    changed = {name for name, w in network.state_dict().items() if not torch.equal(w, before[name])}
    # Nothing failed, and softmax does not see what all keys have in common.
    assert changed <= network.learns_last().keys()
    assert {"layers.1.qkv.weight", "hidden.weight", "correction.weight"} <= changed


def test_steps_are_as_many_as_new_programs_are_worth(predictor: TrainedPredictor) -> None:
    config, batch = AdaptConfig(), random_batch(48)
    steps = [config.steps_for(num_new) for num_new in (0, 1, 11, 12, 16, 20, 48, 8192)]
    assert steps == [16, 16, 16, 18, 24, 30, 40, 40]

    def learned(num_new: int | None) -> np.ndarray:
        copied = copy.deepcopy(predictor)
        copied.fit(rows_of(batch, 1e-4 * np.exp(np.sin(np.arange(48)))), num_new=num_new)
        return np.asarray(copied.predict(batch, DEVICE).latency_s)

    known = learned(1)
    np.testing.assert_array_equal(known, learned(11))
    assert (known != learned(12)).all() and (learned(48) != learned(16)).all()
    np.testing.assert_array_equal(learned(None), learned(48))


def test_an_absurd_latency_moves_little(predictor: TrainedPredictor) -> None:
    batch = random_batch(100)
    before = predictor.predict(batch, DEVICE).latency_s
    measured = before.copy()
    measured[7] = 1e4
    for seed in range(4):
        predictor.fit(rows_of(batch, measured), seed=seed)
    off = np.log(predictor.predict(batch, DEVICE).latency_s / before)
    assert np.median(np.abs(off)) < 0.1


def test_seeds_and_loading(predictor: TrainedPredictor, tmp_path: Path) -> None:
    batch = random_batch(60)
    measured = predictor.predict(batch, DEVICE).latency_s * (1 + np.arange(60) % 3)
    rows = rows_of(batch, measured, num_tasks=2)
    predictor.fit(rows, seed=1)
    predictor.save(tmp_path / "m")
    loaded = TrainedPredictor.load(tmp_path / "m")
    for each in (predictor, loaded):
        each.fit(rows, seed=2)
    expected = predictor.predict(batch, DEVICE)
    found = loaded.predict(batch, DEVICE)
    np.testing.assert_array_equal(found.latency_s, expected.latency_s)
    assert loaded.experts["cpu"].level == predictor.experts["cpu"].level


def test_rows_to_learn_from_are_bounded() -> None:
    groups = np.repeat([3, 1, 8], [1000, 10, 500])
    kept = thin(groups, 60)
    values, counts = np.unique(groups[kept], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {1: 10, 3: 20, 8: 20}
    assert {999, 1009, 1509} <= set(kept.tolist()), "the latest of each task"
    assert thin(groups, 2000).tolist() == list(range(1510))


def test_weights_in_half_precision_come_back(predictor: TrainedPredictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "whole")
    for expert in predictor.experts.values():
        round_weights(expert.network)
    predictor.save(tmp_path / "half")
    sizes = [(tmp_path / name).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    batch = random_batch(30)
    np.testing.assert_array_equal(
        TrainedPredictor.load(tmp_path / "half").predict(batch, DEVICE).latency_s,
        predictor.predict(batch, DEVICE).latency_s,
    )


EMBED = "network.embed.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({EMBED: np.full((96, 173), np.nan, np.float32)}, "embed.weight has values that are not"),
        ({EMBED: np.full((96, 173), 1e30, np.float32)}, r"with a magnitude above 10000\."),
        ({EMBED: np.full((96, 173), -6e4, np.float16)}, r"with a magnitude above 10000\."),
        ({EMBED: np.zeros((95, 173), np.float32)}, "width is 96 by its settings and 95 by its"),
        ({EMBED: np.zeros((96, 172), np.float32)}, "size mismatch for embed.weight"),
        ({EMBED: None}, "'embed.weight' is missing"),
        ({"network.norm.weight": None, "network.norm.bias": None}, "Missing key"),
        ({"ahead.norm.weight": np.ones(96, np.float32)}, "Missing key"),
        ({"neighbours.1.level": np.zeros(1)}, "there is neighbours.1, but not all before it"),
        ({"neighbours.x.level": np.zeros(1)}, "there is neighbours.x, but not all before it"),
        *(
            ({"spread_factor": value}, "spread_factor must be a number of 1e-12 to 1e.12; got")
            for value in (math.nan, -1.0, 0.0, math.inf, 10**400, "1", True, None, [1.0], "1" * 99)
        ),
        *(
            ({"level": value}, "level must be a number of -100 to 100; got")
            for value in (math.inf, math.nan, -101, "12")
        ),
        ({"predicts_failure": "no"}, "predicts_failure must be true or false"),
        ({"config": 3}, "is not a mapping"),
        ({"config": {"depth": 1}}, "unexpected keyword argument 'depth'"),
        ({"config": {"layers": 0}}, "layers is 0 by its settings and 2 by its weights"),
        ({"config": {"layers": 10**9}}, "layers is 1000000000 by its settings"),
        ({"config": {"width": 4 * 10**9}}, "width is 4000000000 by its settings"),
        ({"config": {"hidden": 48}}, "hidden is 48 by its settings and 96 by its weights"),
        ({"config": {"width": "96"}}, "width must be an integer of at least 1; got '96'"),
        ({"config": {"layers": True}}, "layers must be an integer of at least 0; got True"),
        ({"config": {"heads": 0}}, "heads must be an integer of at least 1; got 0"),
        ({"config": {"dropout": math.nan}}, "dropout must be a number of 0 to 0.99; got nan"),
        ({"config": {"input_noise": "much"}}, "input_noise must be a number"),
        ({"config": {"analytic_base": 1}}, "analytic_base must be true or false; got 1"),
        ({"config": {"largest_correction": math.inf}}, "largest_correction must be a number"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = TrainedPredictor.untrained(AdditiveConfig(), 0).content()
    arrays, experts = dict(content.arrays), dict(content.settings["experts"])
    for name, value in changes.items():
        if "." not in name:
            nested = isinstance(value, dict)
            value = {**experts["cpu"][name], **value} if nested else value
            experts["cpu"] = {**experts["cpu"], name: value}
        elif value is None:
            del arrays[f"cpu.{name}"]
        else:
            arrays[f"cpu.{name}"] = value
    assert_refused(tmp_path / "m", {**content.settings, "experts": experts}, arrays, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"about": None}, "about must be a JSON object; got NoneType"),
        ({"about": [["seed", 1]]}, "about must be a JSON object; got list"),
        ({"experts": {}}, "'cpu' is missing"),
        ({"experts": {"cpu": 3}}, "cpu must be a JSON object; got int"),
        ({"experts": []}, "list indices must be"),
        ({"predictor": 3}, "predictor must be a JSON object; got int"),
    ],
    ids=str,
)
def test_damage_of_the_whole_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    content = TrainedPredictor.untrained(AdditiveConfig(), 0).content()
    assert_refused(tmp_path / "m", {**content.settings, **changes}, content.arrays, message)


def assert_refused(
    file: Path, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray], message: str
) -> None:
    """Check that a file is refused in one line that names it, the reason and what to do."""
    write_checkpoint(file, Content(settings, arrays))
    with pytest.raises(CheckpointError, match=message) as raised:
        load_weights(file)
    said = str(raised.value)
    assert said.startswith(f"The predictor in '{file}' is damaged: ")
    assert said.endswith(". Take a copy that is whole, or train it again.")
    assert "\n" not in said


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_weights_still_give_numbers(
    predictor: TrainedPredictor, tmp_path: Path, sign: float
) -> None:
    content, batch = predictor.content(), random_batch(20)
    arrays = {
        name: np.full(array.shape, sign * LARGEST_WEIGHT, np.float32)
        if name.startswith(("cpu.network.", "gpu.network."))
        else array
        for name, array in content.arrays.items()
    }
    drawn = np.random.default_rng(0)
    arrays["cpu.network.layers.0.norm1.bias"] = np.zeros(96, np.float32)
    for name, array in arrays.items():
        if name.startswith("gpu.network."):
            arrays[name] = array * drawn.choice([-1.0, 1.0], array.shape).astype(np.float32)
    write_checkpoint(tmp_path / "m", Content(content.settings, arrays))
    loaded = TrainedPredictor.load(tmp_path / "m")
    for device in (DEVICE, GPU):
        found = loaded.predict(batch, device)
        assert found.leaf_s is not None and found.spread is not None
        for values in (found.latency_s, found.leaf_s, found.spread):
            assert np.isfinite(values).all() and (values > 0).all()


def test_positions_beyond_those_known(predictor: TrainedPredictor) -> None:
    batch = random_batch(5)
    far = CompactASTBatch(batch.vectors, batch.positions + 100_000, batch.offsets)
    assert np.isfinite(predictor.predict(far, DEVICE).latency_s).all()


def test_the_network_starts_without_corrections() -> None:
    network = AdditiveNetwork(AdditiveConfig())
    assert not network.correction.weight.any()


def test_the_order_of_programs_is_none_of_learning(predictor: TrainedPredictor) -> None:
    batch = random_batch(48)
    rows = rows_of(batch, 1e-4 * np.exp(np.sin(np.arange(48))))
    other = copy.deepcopy(predictor)
    predictor.fit(rows)
    other.fit(rows.take(np.arange(48)[::-1]))
    ours, theirs = predictor.predict(batch, DEVICE), other.predict(batch, DEVICE)
    np.testing.assert_allclose(ours.latency_s, theirs.latency_s, rtol=1e-2)


def test_learning_in_a_long_search_is_bounded(predictor: TrainedPredictor) -> None:
    """Ten thousand programs cost no ten times a thousand, and pull the weights no farther."""
    batch = random_batch(10_000)
    generator = np.random.default_rng(0)
    measured = predictor.predict(batch, DEVICE).latency_s * generator.lognormal(0.5, 0.3, 10_000)
    rows = rows_of(batch, measured, num_tasks=20)
    seconds: dict[int, float] = {}
    distances: list[float] = []
    for count in (64, 1000, 10_000, 10_000):  # the first call finds out how to run fast
        begin = time.process_time()
        predictor.fit(rows.take(np.arange(count)), seed=len(distances))
        seconds[count] = time.process_time() - begin
        expert = predictor.expert(DEVICE)
        assert expert.ahead is not None
        now = expert.network.state_dict()
        distances.append(sum(float((now[n] - w).square().sum()) for n, w in expert.ahead.items()))
    assert seconds[10_000] < 3.0 * seconds[1000] + 0.1
    assert distances[-1] < 1.5 * distances[1]
    assert np.isfinite(predictor.predict(batch, DEVICE).latency_s).all()


def test_a_search_that_is_left_after_every_batch_learns_the_same(
    predictor: TrainedPredictor, tmp_path: Path
) -> None:
    batch = random_batch(96)
    generator = np.random.default_rng(0)
    measured = predictor.predict(batch, DEVICE).latency_s * generator.lognormal(0.5, 0.3, 96)
    rows = rows_of(batch, measured, num_tasks=3)
    other = copy.deepcopy(predictor)
    for seed, count in enumerate((32, 64, 96)):
        part = rows.take(np.arange(count))
        predictor.fit(part, seed=seed)
        other.fit(part, seed=seed)
        other.save(tmp_path / "m")
        other = TrainedPredictor.load(tmp_path / "m")
        np.testing.assert_array_equal(
            other.predict(batch, DEVICE).latency_s, predictor.predict(batch, DEVICE).latency_s
        )


def calibrated(predictor: TrainedPredictor, level: float) -> DeviceSpec:
    levels = Levels(weights=predictor.origin, level=level)
    return replace(DEVICE, calibration=DeviceCalibration(levels=(levels,)))


def test_a_calibration_moves_predictions_of_its_weights_only(predictor: TrainedPredictor) -> None:
    predictor = replace(predictor, about={"seed": 1})
    batch, device = random_batch(20), calibrated(predictor, np.log(3.0))
    before, after = predictor.predict(batch, DEVICE), predictor.predict(batch, device)
    np.testing.assert_allclose(after.latency_s, 3.0 * before.latency_s, rtol=1e-5)
    assert before.leaf_s is not None and after.leaf_s is not None
    np.testing.assert_allclose(after.leaf_s, 3.0 * before.leaf_s, rtol=1e-5)
    other = replace(predictor, about={"seed": 2})
    np.testing.assert_array_equal(other.predict(batch, device).latency_s, before.latency_s)
    assert replace(predictor, about={}).origin == ""
    # Another run of the same command may end elsewhere.
    again = copy.deepcopy(replace(predictor, about=predictor.about))
    with torch.no_grad():
        again.experts["gpu"].network.correction.bias.add_(1e-3)
    assert again.origin != predictor.origin


def test_a_search_does_not_apply_a_calibration_twice(
    predictor: TrainedPredictor, tmp_path: Path
) -> None:
    predictor = replace(predictor, about={"seed": 1})
    device, batch = calibrated(predictor, np.log(3.0)), random_batch(64)
    measured_s = 3.3 * predictor.predict(batch, DEVICE).latency_s
    plain, moved = copy.deepcopy(predictor), copy.deepcopy(predictor)
    plain.fit(rows_of(batch, measured_s / 3.0))
    moved.fit(replace(rows_of(batch, measured_s), machines=(Machine(device),)))
    assert moved.experts["cpu"].level == pytest.approx(np.log(1.1), abs=1e-3)
    others = random_batch(50, seed=1)
    found = moved.predict(others, device).latency_s
    np.testing.assert_allclose(found, 3.0 * plain.predict(others, DEVICE).latency_s, rtol=1e-3)
    moved.save(tmp_path / "model")
    loaded = TrainedPredictor.load(tmp_path / "model")
    assert loaded.origin == replace(moved, about=moved.about).origin == predictor.origin
    np.testing.assert_array_equal(loaded.predict(others, device).latency_s, found)


def test_a_device_unlike_any_known_gets_finite_answers(predictor: TrainedPredictor) -> None:
    predictor = replace(predictor, about={"seed": 1})
    least = replace(
        calibrated(predictor, np.log(100.0)),
        cores=1, clock_hz=1e7, simd_bytes=4, fused_multiply_adds_per_cycle=1.0, l1_bytes=512,
        l2_bytes=512, l3_bytes=0, bandwidth_bytes_per_s=1e8,
    )  # fmt: skip
    found = predictor.predict(random_batch(50), least)
    assert np.isfinite(found.latency_s).all() and (found.latency_s > 0).all()
    assert found.spread is not None and np.isfinite(found.spread).all()
