import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import default_target
from tvm_cdmpp.errors import (
    ConfigError,
    MeasureError,
    MissingDependencyError,
    NetworkError,
    RecordError,
)
from tvm_cdmpp.networks.deployment import check_export_path, deploy
from tvm_cdmpp.networks.network import Network, extract_tasks, load_network
from tvm_cdmpp.networks.outputs import random_inputs

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("mlp")


@pytest.fixture(scope="module")
def log(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One record per task but the last; the programs are real, their latency is invented."""
    path = tmp_path_factory.mktemp("log") / "mlp.json"
    tasks, _ = extract_tasks(network, default_target())
    for task in tasks[:-1]:
        policy = auto_scheduler.SketchPolicy(
            task,
            auto_scheduler.RandomModel(),
            params={"sample_init_min_population": 1, "evolutionary_search_population": 8},
            seed=0,
            verbose=0,
        )
        state = policy.sample_initial_population()[0]
        result = auto_scheduler.MeasureResult([1e-3], 0, "", 0.1, 0.0)
        auto_scheduler.save_records(str(path), [auto_scheduler.MeasureInput(task, state)], [result])
    return path


def test_a_log_decides_the_programs(network: Network, log: Path) -> None:
    """Weights are laid out as the records' programs want them: not as the network has them."""
    with_log = deploy(network, default_target(), log).factory.get_params()
    without = deploy(network, default_target()).factory.get_params()
    ranks = {value.numpy().ndim for value in with_log.values()}
    assert max(ranks) > max(value.numpy().ndim for value in without.values())


def test_blank_lines_of_a_log_are_nothing(network: Network, log: Path, tmp_path: Path) -> None:
    spread = tmp_path / "spread.json"
    spread.write_text("\n" + log.read_text().replace("\n", "\n\n\r\n"))
    without = deploy(network, default_target(), spread).num_tasks_without_record
    assert without == deploy(network, default_target(), log).num_tasks_without_record


def test_an_empty_log_leaves_every_task_without_record(network: Network, tmp_path: Path) -> None:
    (tmp_path / "empty.json").touch()
    deployed = deploy(network, default_target(), tmp_path / "empty.json")
    assert deployed.num_tasks_without_record == 4


def test_exported_library_computes_the_same(network: Network, log: Path, tmp_path: Path) -> None:
    deployed = deploy(network, default_target(), log)
    inputs = random_inputs(network, seed=0)
    path = tmp_path / "mlp.so"
    path.write_text("an older library")
    deployed.export(path)
    assert list(tmp_path.iterdir()) == [path]
    device = tvm.cpu()
    module = tvm.contrib.graph_executor.GraphModule(
        tvm.runtime.load_module(str(path))["default"](device)
    )
    module.run(**inputs)
    np.testing.assert_array_equal(module.get_output(0).numpy(), deployed.run(inputs)[0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "takes the inputs data; got none"),
        ({"x": np.zeros((1, 1, 28, 28), np.float32)}, "got x"),
        ({"data": np.zeros((1, 28, 28), np.float32)}, r"shape \(1, 1, 28, 28\)"),
        ({"data": np.zeros((1, 1, 28, 28))}, "must be float32"),
    ],
)
def test_wrong_inputs(network: Network, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        deploy(network, default_target()).run(inputs)


def test_bad_logs(network: Network, log: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no log"):
        deploy(network, default_target(), tmp_path / "missing.json")
    torn = tmp_path / "torn.json"
    torn.write_text(log.read_text()[:-200])
    with pytest.raises(RecordError, match=r"line 3 of the log .*torn\.json"):
        deploy(network, default_target(), torn)


def test_bad_export_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"end in \.so"):
        check_export_path(tmp_path / "library.dll")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        check_export_path(tmp_path / "file" / "library.so")
    monkeypatch.setattr("tvm.contrib.cc.get_cc", lambda: None)
    with pytest.raises(MissingDependencyError, match=r"g\+\+"):
        check_export_path(tmp_path / "library.so")


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("", "the C\\+\\+ compiler failed without a message"),
        (
            "ld: final link failed: No space left on device\ncollect2: error: ld returned 1",
            "ld: final link failed: No space left on device",
        ),
    ],
)
def test_a_failed_export_keeps_the_old_library(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, reason: str
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\nprintf '{says}' >&2\nexit 1\n")
    compiler.chmod(0o755)
    deployed = deploy(network, default_target())
    path = tmp_path / "mlp.so"
    path.write_text("an older library")
    monkeypatch.setattr("tvm.contrib.cc.get_cc", lambda: str(compiler))
    with pytest.raises(MeasureError, match=rf"mlp\.so: {reason}\.$"):
        deployed.export(path)
    assert path.read_text() == "an older library"
    assert sorted(tmp_path.iterdir()) == [compiler, path]


def test_an_export_makes_its_folder(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "mlp.so"
    deploy(network, default_target()).export(path)
    assert path.is_file()


def test_a_full_disk_is_found_before_llvm_meets_it(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MeasureError, match=r"mlp\.so: the disk is full; .* 1 MB are free"):
        deploy(network, default_target()).export(tmp_path / "mlp.so")


def test_a_device_that_is_not_here(network: Network) -> None:
    deployed = replace(deploy(network, default_target()), target=tvm.target.Target("opencl"))
    with pytest.raises(MeasureError, match="no such device"):
        deployed.run(random_inputs(network, seed=0))
