"""TLP: which head says what, and what is padding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.primitives import NUM_NUMBERS, Primitives
from benchmarks.tlp import StepInputs, TLPConfig, TLPNetwork
from tests.models.contract import CPU, GPU

OTHER = replace(CPU, name="other")


def inputs(*devices: str, num_steps: int = 3) -> StepInputs:
    """Programs that are alike but for where they run."""
    count = len(devices)
    numbers = np.tile(np.arange(num_steps * NUM_NUMBERS).reshape(num_steps, -1), (count, 1))
    primitives = Primitives(
        np.tile(np.arange(num_steps, dtype=np.uint8), count),
        numbers.astype(np.int32),
        np.arange(count + 1) * num_steps,
    )
    kinds = np.array(["GPU" if name == "gpu" else "CPU" for name in devices])
    return StepInputs(primitives, kinds, np.array(devices), np.zeros(count))


def network(**changes: bool) -> TLPNetwork:
    torch.manual_seed(0)
    found = TLPNetwork(TLPConfig(width=16, attention_heads=2, **changes), [CPU, OTHER, GPU])
    for head in found.heads:
        torch.nn.init.normal_(head.get_parameter("1.weight"))  # else all says 0
    return found.eval()


@pytest.mark.parametrize("masked", [False, True])
def test_a_head_for_each_device(masked: bool) -> None:
    given = inputs("cpu", "other", "gpu", "unseen", "cpu")
    scores = network(by_device=True, masked=masked).scores(given, np.arange(5)).detach().numpy()
    assert len({round(float(score), 5) for score in scores[:3]}) == 3
    assert scores[3] == pytest.approx(scores[:2].mean(), rel=1e-4)
    assert scores[4] == pytest.approx(scores[0], rel=1e-4)


def test_a_head_for_each_kind() -> None:
    scores = (
        network().scores(inputs("cpu", "other", "gpu", "unseen"), np.arange(4)).detach().numpy()
    )
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[0] == pytest.approx(scores[3], rel=1e-4)
    assert scores[0] != scores[2]


def test_company_changes_nothing() -> None:
    """Longer programs of a minibatch pad the others."""
    model = network(masked=True, logarithms=True)
    short, long = inputs("cpu"), inputs("cpu", num_steps=9)
    both = Primitives(
        np.concatenate([short.primitives.kinds, long.primitives.kinds]),
        np.concatenate([short.primitives.numbers, long.primitives.numbers]),
        np.array([0, 3, 12]),
    )
    together = StepInputs(both, np.array(["CPU"] * 2), np.array(["cpu"] * 2), np.zeros(2))
    alone = model.scores(short, np.arange(1))
    torch.testing.assert_close(model.scores(together, np.arange(2))[:1], alone)
    torch.testing.assert_close(model.scores(together, np.array([1, 0]))[1:], alone)
