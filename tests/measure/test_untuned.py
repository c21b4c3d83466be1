"""Functions with TVM's own schedules: what they are, and how they run."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.bridge import default_target, latency_s, parse_target
from tvm_cdmpp.measure.calibration import calibration_program
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.untuned import build_function, compile_function
from tvm_cdmpp.networks import LAYERS, OwnFunction, network_of_layers, own_functions


@pytest.fixture(scope="module")
def functions() -> list[OwnFunction]:
    return own_functions(network_of_layers(LAYERS[:6]), TARGET, 2)


def test_each_layer_has_a_function_of_its_operator(functions: list[OwnFunction]) -> None:
    assert sorted(function.operator for function in functions) == [
        "batch_matmul", "conv2d", "conv2d_1x1", "conv2d_1x1", "depthwise_conv2d", "matmul",
        "max_pool",
    ]  # fmt: skip
    names = [function.name for function in functions]
    assert len(set(names)) == len(names)
    assert "batch_matmul 8x96x64,8x96x64 float32" in names
    assert all(function.leaves for function in functions)


def test_names_do_not_depend_on_what_else_is_compiled(functions: list[OwnFunction]) -> None:
    fewer = own_functions(network_of_layers(LAYERS[:3]), TARGET, 2)
    assert {f.name for f in fewer} < {f.name for f in functions}
    assert {f.key for f in fewer} < {f.key for f in functions}
    assert len({f.key for f in functions}) == len(functions)


def test_a_function_is_compiled_for_the_cpu_of_the_target(functions: list[OwnFunction]) -> None:
    """TVM compiles for any CPU of the architecture where nobody says which."""
    (conv2d, *_) = (function for function in functions if function.operator == "conv2d")
    code = {
        cpu: str(compile_function(conv2d, parse_target(f"llvm -mcpu={cpu}")).get_source("asm"))
        for cpu in ("x86-64", "znver2")
    }
    assert "vfmadd" not in code["x86-64"]
    assert "vfmadd" in code["znver2"]


def test_functions_run_as_programs_do(functions: list[OwnFunction]) -> None:
    target, options = default_target(), MeasureOptions(repeat=3)
    stand_in = calibration_program(target)
    with MeasureSession():
        built = [build_function(function, target) for function in functions]
        runner = options.runner(on_cpu=True)
        results = runner.run([stand_in] * len(functions), built, verbose=0)
    assert not any(Path(str(b.filename)).parent.exists() for b in built)
    for function, result in zip(functions, results, strict=True):
        assert int(result.error_no) == 0, result.error_msg
        least_s = function_flops(function) / 1e12
        assert least_s < latency_s(result) < 0.1


def function_flops(function: OwnFunction) -> float:
    return float(sum(math.prod(loop.extent for loop in leaf.loops) for leaf in function.leaves))


def test_what_cannot_be_compiled_is_told_as_a_failed_build(functions: list[OwnFunction]) -> None:
    broken = replace(functions[0], program=functions[0].program.with_attr("target", "nonsense"))
    built = build_function(broken, TARGET)
    assert int(built.error_no) != 0
    assert not Path(str(built.filename)).parent.exists()
