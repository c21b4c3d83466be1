"""What `tune` reads from its command line, and how it refuses what it cannot use."""

from pathlib import Path

import pytest

from tests.tiny_tasks import tvm
from tvm_cdmpp.cli.main import main
from tvm_cdmpp.cli.tune import default_log


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
