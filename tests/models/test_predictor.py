"""The predictor: what it must not depend on, and what it starts as."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.programs import both, extract, matmul_graph, random_batch
from tvm_cdmpp.ast.compact import concatenate
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import chunks as chunks_module
from tvm_cdmpp.models.analytic import estimate_latency_s
from tvm_cdmpp.models.network import Inputs, PredictorConfig, make_inputs, torch_threads
from tvm_cdmpp.models.predictor import Predictor

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)


@pytest.fixture
def predictor() -> Predictor:
    """A predictor whose corrections are large, as if it had learned something."""
    predictor = Predictor.untrained(PredictorConfig(), seed=3)
    last = predictor.network.head[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    predictor.predicts_failure = True
    return predictor


def test_the_fixture_corrects(predictor: Predictor) -> None:
    batch = random_batch(50)
    latencies_s, runs = both(predictor.predict(batch, DEVICE))
    assert np.log(latencies_s / estimate_latency_s(batch, DEVICE)).std() > 0.05
    assert runs.std() > 0.01


def test_padding_changes_nothing(predictor: Predictor) -> None:
    batch = random_batch(40)
    assert len(set(batch.leaf_counts)) > 1
    # A chain of four matrix products' leaves as one program forces padding on all others.
    long = extract([[]], matmul_graph(8, 8, 8))
    vectors = np.concatenate([long.vectors] * 4)
    longest = type(long)(vectors, np.arange(12, dtype=np.int32), np.array([0, 12]))
    alone, alone_runs = both(predictor.predict(batch, DEVICE))
    padded, padded_runs = both(predictor.predict(concatenate([batch, longest]), DEVICE))
    np.testing.assert_allclose(padded[:-1], alone, rtol=1e-5)
    np.testing.assert_allclose(padded_runs[:-1], alone_runs, atol=1e-5)


def test_training_pads_and_sees_the_same_labels(predictor: Predictor) -> None:
    """Programs are scored in chunks of one leaf count, but trained on side by side."""
    batch = random_batch(40)
    inputs = make_inputs(batch, [DEVICE], predictor.network.config)
    assert not inputs.mask.all()
    with torch.inference_mode():
        labels, logits = predictor.network(inputs, predictor.base(inputs))
    latencies_s, runs = both(predictor.predict(batch, DEVICE))
    padded_s = predictor.labels.inverse(labels.numpy().astype(np.float64))
    np.testing.assert_allclose(padded_s, latencies_s, rtol=1e-5)
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), runs, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 39, 40])
def test_chunks_change_nothing(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    batch = random_batch(40)
    latencies_s, runs = both(predictor.predict(batch, DEVICE))
    monkeypatch.setattr(chunks_module, "_CHUNK_LEAVES", size)
    chunked_s, chunked_runs = both(predictor.predict(batch, DEVICE))
    np.testing.assert_allclose(chunked_s, latencies_s, rtol=1e-5)
    np.testing.assert_allclose(chunked_runs, runs, atol=1e-5)


@pytest.mark.parametrize("num_threads", [None, 2])
def test_threads(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, num_threads: int | None
) -> None:
    batch = random_batch(20)
    expected = predictor.predict(batch, DEVICE).latency_s
    seen = []

    def spy(inputs: Inputs, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return forward(inputs, base)

    forward = predictor.network.forward
    monkeypatch.setattr(predictor.network, "forward", spy)
    with torch_threads(3):
        options = {} if num_threads is None else {"num_threads": num_threads}
        latencies_s = predictor.predict(batch, DEVICE, **options).latency_s
        assert torch.get_num_threads() == 3
    assert set(seen) == {num_threads or 1}
    np.testing.assert_allclose(latencies_s, expected, rtol=1e-5)


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        _ = 1 / 0
    assert torch.get_num_threads() == before


def test_order_and_company_change_nothing(predictor: Predictor) -> None:
    batch = random_batch(600)  # more than one chunk
    together, runs = both(predictor.predict(batch, DEVICE))
    order = np.random.default_rng(0).permutation(600)
    shuffled, shuffled_runs = both(predictor.predict(batch.take(order), DEVICE))
    np.testing.assert_allclose(shuffled, together[order], rtol=1e-5)
    np.testing.assert_allclose(shuffled_runs, runs[order], atol=1e-5)
    for n in (0, 5):
        alone = predictor.predict(batch.take([n]), DEVICE).latency_s
        np.testing.assert_allclose(alone, together[[n]], rtol=1e-5)


def test_positions_count(predictor: Predictor) -> None:
    batch = random_batch(20)
    moved = type(batch)(batch.vectors, batch.positions + 7, batch.offsets)
    ratio = predictor.predict(moved, DEVICE).latency_s / predictor.predict(batch, DEVICE).latency_s
    assert (abs(ratio - 1) > 1e-4).any()


def test_the_device_counts(predictor: Predictor) -> None:
    batch = random_batch(20)
    other = DeviceSpec(
        name="other", kind="cpu", cores=4, bandwidth_bytes_per_s=1e11, l2_bytes=2**21
    )

    def correction(device: DeviceSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return predictor.predict(batch, device).latency_s / estimate_latency_s(batch, device)

    assert (abs(correction(DEVICE) / correction(other) - 1) > 1e-4).any()


def test_untrained_is_the_analytic_estimate() -> None:
    batch = random_batch(100)
    analytic_s = estimate_latency_s(batch, DEVICE)
    for seed in (0, 1):
        latencies_s, runs = both(
            Predictor.untrained(PredictorConfig(), seed).predict(batch, DEVICE)
        )
        np.testing.assert_allclose(latencies_s, analytic_s, rtol=1e-5)
        clear = np.diff(np.sort(analytic_s)) > 1e-4 * np.sort(analytic_s)[1:]
        order = np.argsort(analytic_s, kind="stable")
        assert (np.diff(latencies_s[order])[clear] > 0).all()
        assert (runs == 1).all()


def test_no_programs(predictor: Predictor) -> None:
    latencies_s, runs = both(predictor.predict(concatenate([]), DEVICE))
    assert latencies_s.shape == runs.shape == (0,)


def test_seeds() -> None:
    def weights(seed: int) -> torch.Tensor:
        network = Predictor.untrained(PredictorConfig(), seed).network
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    state = torch.random.get_rng_state()
    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_inputs() -> None:
    batch = random_batch(10)
    inputs = make_inputs(batch, [DEVICE], PredictorConfig())
    assert len(inputs) == 10
    assert inputs.leaves.shape[:2] == inputs.mask.shape == (10, batch.leaf_counts.max())
    short = torch.from_numpy(np.flatnonzero(batch.leaf_counts == batch.leaf_counts.min()))
    taken = inputs.take(short)
    assert taken.leaves.shape[1] == batch.leaf_counts.min()
    assert taken.mask.all()
    np.testing.assert_array_equal(taken.analytic_s, inputs.analytic_s[short.numpy()])


@pytest.mark.parametrize(
    ("width", "heads", "said"),
    [
        (64, 3, "got width=64, heads=3"),
        (12, 4, "got width=12, heads=4"),
        (64, 0, "heads must be an integer of at least 1; got 0"),
    ],
)
def test_config_errors(width: int, heads: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PredictorConfig(width=width, heads=heads)
