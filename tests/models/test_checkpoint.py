"""Saved predictors: bit-equal, refused when damaged, never half written."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models.programs import random_batch
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models import checkpoint
from tvm_cdmpp.models.checkpoint import load_predictor, save_predictor
from tvm_cdmpp.models.predictor import Predictor, PredictorConfig
from tvm_cdmpp.train.loop import FitConfig, TrainingRows, fit

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)
SMALL = PredictorConfig(width=16, heads=2, layers=1, hidden=24, dropout=0.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    predictor = Predictor.untrained(SMALL, seed=1)
    latencies_s = np.random.default_rng(0).lognormal(-8, 1, 40)
    latencies_s[:3] = np.inf
    rows = TrainingRows(random_batch(40), latencies_s, np.zeros(40, dtype=np.int64))
    fit(predictor, rows, DEVICE, FitConfig(steps=3), seed=0)
    return predictor


def test_round_trip(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "model.safetensors"
    arrays = {
        "rows": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
        "x": np.array([np.inf, 1e-300]),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    extra = {"keys": ["a", "ü"], "count": 3, "nested": {"x": [1.5, None]}}
    save_predictor(file, predictor, arrays, extra)
    loaded, loaded_arrays, loaded_extra = load_predictor(file)

    batch = random_batch(50, seed=9)
    for mine, theirs in zip(predictor.predict(batch, DEVICE), loaded.predict(batch, DEVICE),
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(mine, theirs)
    assert loaded.network.config == SMALL
    assert loaded.labels == predictor.labels
    assert loaded.predicts_failure
    assert loaded_extra == extra
    assert sorted(loaded_arrays) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded_arrays[name], array)
        assert loaded_arrays[name].dtype == array.dtype


def test_unfitted_round_trip(tmp_path: Path) -> None:
    untrained = Predictor.untrained(PredictorConfig(), seed=0)
    save_predictor(tmp_path / "m", untrained)
    loaded, arrays, extra = load_predictor(tmp_path / "m")
    assert loaded.labels == untrained.labels
    assert (arrays, extra) == ({}, {})


def test_saving_replaces(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "m"
    save_predictor(file, predictor, extra={"version": 1})
    save_predictor(file, predictor, extra={"version": 2})
    assert load_predictor(file)[2] == {"version": 2}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kept", [0, 7, 100, 2000, -1])
def test_truncated(predictor: Predictor, tmp_path: Path, kept: int) -> None:
    file = tmp_path / "m"
    save_predictor(file, predictor)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=str(file)):
        load_predictor(file)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    text, tensors, folder = tmp_path / "text", tmp_path / "tensors", tmp_path / "folder"
    text.write_text('{"i": [["[]", "llvm"]]}\n' * 100)
    save_file({"x": torch.zeros(3)}, tensors)
    folder.mkdir()
    for file in (text, tensors, folder, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=f"saved by tvm_cdmpp; could not read '{file}'"):
            load_predictor(file)


@pytest.mark.parametrize("version", [1, 99])
def test_other_schema(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA_VERSION", version)
        save_predictor(tmp_path / "m", predictor)
    expected = rf"schema version {version}; .*reads .* schema version 2\. Train it again"
    with pytest.raises(CheckpointError, match=expected):
        load_predictor(tmp_path / "m")


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of the header; a `None` removes one."""
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["tvm_cdmpp"])
    header |= changes
    header = {key: value for key, value in header.items() if value is not None}
    save_file(load_file(file), file, metadata={"tvm_cdmpp": json.dumps(header)})


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"width": 15}},
        {"config": {"width": 32, "heads": 2, "layers": 1, "hidden": 24, "dropout": 0.0}},
        {"config": {"depth": 3}},
        {"config": 3},
        {"labels": None},
        {"labels": {"power": 0.0, "unknown": 1}},
        {"extra": None},
        {"base_slope": None},
        {"format": 2},
    ],
    ids=str,
)
def test_damaged_header(predictor: Predictor, tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "m"
    save_predictor(file, predictor)
    rewrite(file, **changes)
    with pytest.raises(CheckpointError, match=str(file)):
        load_predictor(file)


def test_header_of_another_kind(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "m"
    for text in ("[]", "3", "{"):
        save_file({"x": torch.zeros(3)}, file, metadata={"tvm_cdmpp": text})
        with pytest.raises(CheckpointError, match=str(file)):
            load_predictor(file)


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_failing_write_leaves_the_old_file(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "m"
    save_predictor(file, predictor, extra={"version": 1})
    with small_files(1000), pytest.raises(OSError, match="large"):
        save_predictor(file, predictor, extra={"version": 2})
    assert load_predictor(file)[2] == {"version": 1}
    assert list(tmp_path.iterdir()) == [file]
