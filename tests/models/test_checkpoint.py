"""Saved predictors: bit-equal, refused when damaged, never half written."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.programs import random_batch
from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError
from tvm_cdmpp.models import checkpoint
from tvm_cdmpp.models.checkpoint import Content, read_checkpoint, write_checkpoint
from tvm_cdmpp.models.fitting import FitConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows

DEVICE = DeviceSpec(name="cpu", kind="cpu", cores=4)
SMALL = PredictorConfig(width=16, heads=2, layers=1, hidden=24, dropout=0.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    predictor = Predictor.untrained(SMALL, seed=1)
    latencies_s = np.random.default_rng(0).lognormal(-8, 1, 40)
    latencies_s[:3] = np.inf
    rows = TrainingRows.on(DEVICE, random_batch(40), latencies_s, np.zeros(40, dtype=np.int64))
    predictor.fit_config = FitConfig(steps=3)
    predictor.fit(rows, seed=0)
    return predictor


def test_contents_come_back(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "model.safetensors"
    arrays = {
        "rows": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
        "x": np.array([np.inf, 1e-300]),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    settings = {"keys": ["a", "ü"], "count": 3, "nested": {"x": [1.5, None]}}
    other = Content({"x": 1}, {"x": np.ones(2)})
    write_checkpoint(file, Content.under(some=Content(settings, arrays), other=other))
    loaded = read_checkpoint(file)
    assert loaded.part("some").settings == settings
    assert loaded.part("other").settings == {"x": 1}
    assert sorted(loaded.part("some").arrays) == sorted(arrays)
    for name, array in arrays.items():
        found = loaded.part("some").arrays[name]
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    with pytest.raises(KeyError):
        loaded.part("none")


def test_round_trip(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "m")
    loaded = Predictor.load(tmp_path / "m")
    assert loaded.network.config == SMALL
    assert loaded.labels == predictor.labels
    assert loaded.predicts_failure
    unfitted = Predictor.untrained(PredictorConfig(), seed=0)
    unfitted.save(tmp_path / "m")
    assert Predictor.load(tmp_path / "m").labels == unfitted.labels
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


def test_a_folder_is_left_as_it_is(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="m"):
        predictor.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


def test_a_flipped_bit_is_found(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "m"
    predictor.save(file)
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(8, len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=str(file)):
            Predictor.load(file)


@pytest.mark.parametrize("kept", [0, 7, 100, 2000, -1])
def test_truncated(predictor: Predictor, tmp_path: Path, kept: int) -> None:
    file = tmp_path / "m"
    predictor.save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=str(file)):
        Predictor.load(file)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    text, tensors, folder = tmp_path / "text", tmp_path / "tensors", tmp_path / "folder"
    text.write_text('{"i": [["[]", "llvm"]]}\n' * 100)
    save_file({"x": torch.zeros(3)}, tensors)
    folder.mkdir()
    for file in (text, tensors, folder, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=f"saved by tvm_cdmpp; could not read '{file}'"):
            Predictor.load(file)


@pytest.mark.parametrize("version", [1, 99])
def test_other_schema(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA_VERSION", version)
        predictor.save(tmp_path / "m")
    expected = (
        rf"schema version {version}; .*reads .* schema version {SCHEMA_VERSION}\. Train it again"
    )
    with pytest.raises(CheckpointError, match=expected):
        Predictor.load(tmp_path / "m")


def rewrite(file: Path, **changes: Any) -> None:
    """Change settings, as an honest writer of another version would; a `None` removes one."""
    content = read_checkpoint(file)
    settings = {**content.settings, **changes}
    settings = {key: value for key, value in settings.items() if value is not None}
    write_checkpoint(file, Content(settings, content.arrays))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"width": 15}},
        {"config": {"width": 32, "heads": 2, "layers": 1, "hidden": 24, "dropout": 0.0}},
        {"config": {"depth": 3}},
        {"config": 3},
        {"labels": None},
        {"labels": {"power": 0.0, "unknown": 1}},
        {"base_slope": None},
        {"base_slope": math.nan},
        {"base_shift": "0"},
        {"labels": {"power": math.inf}},
        {"labels": {"high": math.nan}},
        {"config": {**asdict(SMALL), "width": "16"}},
        {"config": {**asdict(SMALL), "layers": 0}},
        {"config": {**asdict(SMALL), "layers": 10**9}},
    ],
    ids=str,
)
def test_damaged_header(predictor: Predictor, tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "m"
    predictor.save(file)
    rewrite(file, **changes)
    with pytest.raises(CheckpointError, match=str(file)) as raised:
        Predictor.load(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", [[], 3, None, "text"])
def test_settings_are_an_object(tmp_path: Path, settings: Any) -> None:
    write_checkpoint(tmp_path / "m", Content(settings, {}))
    with pytest.raises(CheckpointError, match="its settings must be a JSON object"):
        read_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_weights_that_cannot_be(predictor: Predictor, tmp_path: Path, value: float) -> None:
    content = predictor.content()
    arrays = {**content.arrays, "embed.bias": np.full(16, value, np.float32)}
    write_checkpoint(tmp_path / "m", Content(content.settings, arrays))
    with pytest.raises(CheckpointError, match=r"embed\.bias has values that are not finite"):
        Predictor.load(tmp_path / "m")


def test_header_of_another_kind(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "m"
    for text in ("[]", "3", "{", "[" * 100_000):
        save_file({"x": torch.zeros(3)}, file, metadata={"tvm_cdmpp": text})
        with pytest.raises(CheckpointError, match=str(file)):
            Predictor.load(file)


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WEIGHTS = {"w": np.zeros(1000)}


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "m"
    write_checkpoint(file, Content({"version": 1}, WEIGHTS))
    with small_files(1000), pytest.raises(OSError, match="large"):
        write_checkpoint(file, Content({"version": 2}, WEIGHTS))
    assert read_checkpoint(file).settings == {"version": 1}
    assert list(tmp_path.iterdir()) == [file]
