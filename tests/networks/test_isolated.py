import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tvm_cdmpp.bridge.target import default_target
from tvm_cdmpp.errors import MeasureError
from tvm_cdmpp.networks.deployment import Deployed, deploy
from tvm_cdmpp.networks.isolated import NetworkProcess
from tvm_cdmpp.networks.network import load_network
from tvm_cdmpp.networks.outputs import Array, random_inputs


@pytest.fixture(scope="module")
def deployed() -> Deployed:
    return deploy(load_network("mlp"), default_target())


@pytest.fixture(scope="module")
def library(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "mlp.so"
    deployed.export(path)
    return path


@pytest.fixture(scope="module")
def inputs(deployed: Deployed) -> dict[str, Array]:
    return random_inputs(deployed.network, seed=0)


def test_the_process_computes_the_same_and_survives_interrupts_only(
    deployed: Deployed, library: Path, inputs: dict[str, Array]
) -> None:
    with NetworkProcess([library], "llvm", inputs) as process:
        np.testing.assert_array_equal(process.run(0)[0], deployed.run(inputs)[0])
        child = process._process
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
        assert 0 < process.time(0) < 1
        os.kill(child.pid, signal.SIGILL)
        with pytest.raises(MeasureError, match="instruction that this CPU does not have"):
            process.time(0)
        with pytest.raises(MeasureError, match="instruction that this CPU does not have"):
            process.run(0)
    assert not child.is_alive()


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [("llvm", b"no library", "does not run"), ("cuda", None, "no cuda device")],
)
def test_what_does_not_load(
    tmp_path: Path,
    library: Path,
    inputs: dict[str, Array],
    kind: str,
    content: bytes | None,
    message: str,
) -> None:
    path = library
    if content is not None:
        path = tmp_path / "mlp.so"
        path.write_bytes(content)
    with pytest.raises(MeasureError, match=message), NetworkProcess([path], kind, inputs):
        pass
