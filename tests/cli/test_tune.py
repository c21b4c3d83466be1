"""What `tune` reads from its command line, and how it refuses what it cannot use."""

from pathlib import Path

import pytest

from tests.search.workloads import tvm
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.cli.tune import default_log, parse_input_shapes
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


def test_default_log_names_network_and_cpu() -> None:
    assert default_log("mlp", tvm.target.Target("llvm -mcpu=znver2")) == Path("mlp.znver2.json")
    assert default_log("mlp", tvm.target.Target("cuda")) == Path("mlp.cuda.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "trials must be at least 1"),
        (["--export", "library.dll"], ".so"),
        (["--input-shape", "data"], "NAME:SIZE"),
        (["--model", "gbm"], "unknown cost model 'gbm'"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "mlp", *arguments]) == 2
    assert message in capsys.readouterr().err
