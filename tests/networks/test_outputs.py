from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks.imported import Reference
from tvm_cdmpp.networks.network import load_network
from tvm_cdmpp.networks.outputs import Array, check_outputs, compare_outputs, random_inputs
from tvm_cdmpp.networks.torch_files import torch_reference


def test_random_inputs_repeat() -> None:
    network = load_network("mlp")
    first, again, other = (random_inputs(network, seed=s)["data"] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_differences_count_relative_to_the_range() -> None:
    probabilities = np.array([1000.0, 1001.0])
    assert compare_outputs([probabilities], [probabilities + 0.001]).agree
    assert not compare_outputs([probabilities], [probabilities[::-1]]).agree
    off = compare_outputs([np.array([0.0, 10.0])], [np.array([0.0, 9.0])])
    assert (off.max_absolute_difference, off.max_relative_difference) == (1.0, 0.1)


def test_outputs_that_are_not_finite() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert compare_outputs([odd], [odd.copy()]).agree
    assert not compare_outputs([odd], [np.array([0.0, np.inf, -np.inf, 1.0])]).agree
    assert not compare_outputs([np.ones(2)], [np.array([1.0, np.nan])]).agree


def test_outputs_of_other_shapes() -> None:
    with pytest.raises(ConfigError, match="same shapes"):
        compare_outputs([np.ones(2)], [np.ones(3)])


def test_outputs_are_checked_against_the_framework_where_there_is_one() -> None:
    network = load_network("mlp")
    untuned, tuned = [np.array([[0.0, 1.0]])], [np.array([[0.0, 2.0]])]
    comparison, against = check_outputs(network, {}, untuned, tuned)
    assert (comparison.agree, against) == (False, "the untuned network")
    # An axis of size 1 is no difference.
    knows = replace(network, reference=Reference("Oracle 1", lambda _: [np.array([0.0, 2.0])]))
    comparison, against = check_outputs(knows, {}, untuned, tuned)
    assert (comparison.agree, against) == (True, "Oracle 1")


@pytest.mark.parametrize("failure", [RuntimeError("no such operator"), TypeError("a dict")])
def test_a_framework_that_cannot_run_the_network(failure: Exception) -> None:
    def fail(inputs: Mapping[str, Array]) -> list[Array]:
        raise failure

    network = replace(load_network("mlp"), reference=Reference("Oracle 1", fail))
    ones = [np.ones(2)]
    comparison, against = check_outputs(network, {}, ones, ones)
    assert comparison.agree
    assert against == f"the untuned network (not with Oracle 1: {failure})"


def test_a_framework_with_other_outputs() -> None:
    found: list[Array] = []
    ones = [np.ones(2)]
    network = replace(load_network("mlp"), reference=Reference("Oracle 1", lambda _: found))
    for other in ([], [np.ones(3)], [np.ones(2), np.ones(2)]):
        found[:] = other
        assert check_outputs(network, {}, ones, ones)[1].startswith("the untuned network (not with")


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    network = load_network("mlp")
    exact, rounded = np.array([0.0, 1.0]), np.array([0.0, 1.01])
    assert not check_outputs(network, {}, [exact], [rounded])[0].agree
    halves = [exact.astype(np.float16)], [rounded.astype(np.float16)]
    assert check_outputs(network, {}, *halves)[0].agree


def test_outputs_of_torch_are_flattened() -> None:
    class Nested(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            return x, (x + 1, x + 2)

    reference = torch_reference(Nested(), {"x": ((2,), "float32")})
    found = reference.run({"x": np.zeros(2, np.float32)})
    assert [float(array[0]) for array in found] == [0, 1, 2]
