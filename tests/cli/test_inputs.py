"""How what a model file leaves open is read from the command line."""

import argparse

import pytest

from tvm_cdmpp.cli.inputs import (
    add_inputs,
    check_gpu_is_here,
    input_options,
    inputs_of,
    parse_input_dtypes,
    parse_input_shapes,
)
from tvm_cdmpp.errors import ConfigError


def test_input_shapes() -> None:
    assert parse_input_shapes(["data:1x3x224x224", "a:b:7"]) == {
        "data": (1, 3, 224, 224),
        "a:b": (7,),
    }


@pytest.mark.parametrize("text", ["1x3", "data:", "data:1x", "data:1x-3", "data:0x3", ":1"])
def test_wrong_input_shapes(text: str) -> None:
    with pytest.raises(ConfigError, match="takes NAME:SIZExSIZE"):
        parse_input_shapes([text])


def test_input_given_twice() -> None:
    with pytest.raises(ConfigError, match="'a' twice"):
        parse_input_shapes(["a:1", "a:2"])


def parse(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_inputs(parser)
    return parser.parse_args(line.split())


def test_input_dtypes() -> None:
    assert parse_input_dtypes(["data:float16", "a:b:int64", "c:bool"]) == {
        "data": "float16",
        "a:b": "int64",
        "c": "bool",
    }


@pytest.mark.parametrize(
    "text", ["float16", "data:", "data:half", ":int64", "data:float8", "x:int"]
)
def test_wrong_input_dtypes(text: str) -> None:
    with pytest.raises(ConfigError, match="takes NAME:TYPE"):
        parse_input_dtypes([text])


def test_element_type_given_twice() -> None:
    with pytest.raises(ConfigError, match="'a' twice"):
        parse_input_dtypes(["a:int32", "a:int64"])


def test_options_as_load_network_takes_them() -> None:
    line = "--input-shape x:1x3 --batch 2 --input-dtype x:float16 --input-shape y:4"
    assert input_options(parse(line)) == {
        "input_shapes": {"x": (1, 3), "y": (4,)},
        "batch": 2,
        "input_dtypes": {"x": "float16"},
    }


def test_options_are_for_the_files_among_networks() -> None:
    options = inputs_of(parse("--batch 2"), ["mlp", "model.onnx"])
    assert options("mlp") == {"batch": 2}
    assert options("model.onnx")["batch"] == 2
    assert inputs_of(parse(""), ["mlp"])("mlp") == {"batch": None}
    shapes = parse("--input-shape x:1x3")
    assert inputs_of(shapes, ["mlp", "model.onnx"])("mlp") == {"batch": None}
    with pytest.raises(ConfigError, match="are for model files"):
        inputs_of(shapes, ["mlp", "resnet-18"])


def test_each_of_several_files_can_have_inputs_of_its_own() -> None:
    line = "--input-shape a.pt:x:1x3 --input-shape b.onnx:y:4 --input-dtype b.onnx:y:int8"
    options = inputs_of(parse(f"{line} --input-shape z:5"), ["a.pt", "mlp", "b.onnx"])
    assert options("a.pt")["input_shapes"] == {"x": (1, 3), "z": (5,)}
    assert options("a.pt")["input_dtypes"] == {}
    assert options("b.onnx")["input_shapes"] == {"y": (4,), "z": (5,)}
    assert options("b.onnx")["input_dtypes"] == {"y": "int8"}
    assert options("mlp") == {"batch": None}
    with pytest.raises(ConfigError, match="are for model files"):
        inputs_of(parse("--input-shape mlp:x:1x3"), ["mlp", "a.pt"])


def test_a_gpu_is_looked_for_before_tvm_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_cdmpp.devices.read_cuda_gpus", tuple)
    check_gpu_is_here("llvm")
    with pytest.raises(ConfigError, match="cuda -arch=sm_70 cannot run on this machine"):
        check_gpu_is_here("cuda -arch=sm_70")
