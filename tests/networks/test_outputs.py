import numpy as np
import pytest

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.networks.network import load_network
from tvm_cdmpp.networks.outputs import compare_outputs, random_inputs


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
