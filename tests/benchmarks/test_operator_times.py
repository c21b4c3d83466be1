"""A network is timed as a whole, and each of its operators with real values in its memory."""

import numpy as np

from benchmarks.operator_times import Array, TimedNetwork
from tvm_cdmpp.bridge import load_tvm, quiet_tvm

tvm = load_tvm()
relay = tvm.relay


def test_each_operator_is_timed_with_what_it_has_in_the_network() -> None:
    x, w = relay.var("x", shape=(4, 256)), relay.var("w", shape=(256, 256))
    rows = relay.var("rows", shape=(4,), dtype="int64")
    y = relay.nn.relu(relay.nn.dense(relay.take(w, rows, axis=0), w))
    mod = tvm.IRModule.from_expr(relay.Function([x, w, rows], relay.nn.softmax(relay.add(x, y))))
    rng = np.random.default_rng(0)
    weights = {"w": tvm.nd.array(rng.standard_normal((256, 256), dtype=np.float32))}
    with quiet_tvm():
        factory = relay.build(mod, target="llvm", params=weights)
    # An index that is not there would end the process.
    inputs: dict[str, Array] = {
        "x": np.ones((4, 256), np.float32),
        "rows": np.array([0, 255, 3, 9], np.int64),
    }
    timed = TimedNetwork(factory.module, inputs)
    assert timed.parameters == set(factory.get_params())
    for alone in (False, True):
        assert len(timed.functions) >= 3
        for function in timed.functions:
            seconds = timed.operator_s(function, 3, alone=alone)
            assert seconds.shape == (3,)
            assert (seconds > 0).all()
            assert (seconds < 0.1).all()
    assert (timed.run_s(3) > 0).all()


def test_all_that_others_move_is_read_before_a_run_and_what_is_read_last_is_its_input() -> None:
    x = relay.var("x", shape=(1, 128))
    weights = {f"w{n}": np.ones((128, 128), np.float32) for n in range(3)}
    y = x
    for name in weights:
        y = relay.nn.relu(relay.nn.dense(y, relay.var(name, shape=(128, 128))))
    mod = tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(y), y))
    with quiet_tvm():
        factory = relay.build(mod, target="llvm", params=weights)
    timed = TimedNetwork(factory.module, {"x": np.ones((1, 128), np.float32)})
    last = len(timed._operators) - 1
    reads = list(timed._reads_before(last))
    bytes_read = sum(4 * array.shape[0] for array in reads)
    assert 2 * 4 * 128 * 128 <= bytes_read < 3 * 4 * 128 * 128
    own = timed._values[timed._operators[last].entries[0]]
    assert np.array_equal(reads[-1].numpy(), own.numpy().ravel())
