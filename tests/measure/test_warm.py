"""Functions with full caches, built and run for real."""

import math
from collections import Counter
from unittest.mock import Mock

import numpy as np
import pytest

from tests.tiny_tasks import TARGET
from tvm_cdmpp.measure import warm
from tvm_cdmpp.measure.session import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.warm import WarmEstimate, WarmLevels, warm_levels
from tvm_cdmpp.networks import (
    KEPT_LAYERS,
    LAYERS,
    LIBRARY_LAYERS,
    PLAIN_LAYERS,
    OwnFunction,
    network_of_layers,
    own_functions,
    plain_functions,
)


class Said:
    """Says the same of every function."""

    def __init__(self, start_s: float, work_s: float, gone: float = 1.0) -> None:
        self.asked: Counter[str] = Counter()
        self._said = WarmEstimate(start_s, work_s, gone)

    def plain(self, function: OwnFunction, wake_s: float | None) -> WarmEstimate:
        assert wake_s == 2e-6
        self.asked[function.name.split()[0]] += 1
        return self._said

    def kept(self, function: OwnFunction, wake_s: float | None, alone_s: float) -> WarmEstimate:
        assert wake_s == 2e-6
        assert 1e-7 < alone_s < 1.0
        self.asked["kept"] += 1
        return self._said


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLAIN_LAYERS", "LIBRARY_LAYERS", "KEPT_LAYERS"):
        monkeypatch.setattr(warm, name, getattr(warm, name)[:3])


def levels(said: Said, on_stage: warm.OnStage = lambda what, done, number: None) -> WarmLevels:
    options, wakes = MeasureOptions(repeat=3), Mock(take=lambda: 2e-6)
    with MeasureSession():
        return warm_levels(options, TARGET, wakes, said, on_stage)


@pytest.mark.parametrize("layers", [PLAIN_LAYERS, LIBRARY_LAYERS, KEPT_LAYERS])
def test_layers_are_of_either_kind(layers: tuple[object, ...]) -> None:
    network = network_of_layers(layers)  # type: ignore[arg-type]
    are_kept = layers is KEPT_LAYERS
    assert (len(plain_functions(network, TARGET, 2)) >= len(layers)) == (not are_kept)
    assert len(own_functions(network, TARGET, 2)) == (len(layers) if are_kept else 0)
    assert len(own_functions(network_of_layers(LAYERS[1:2]), TARGET, 2)) == 1


def test_the_level_is_how_much_more_the_work_takes() -> None:
    said, stages = Said(1e-9, 1e-5), list[tuple[str, int, int]]()
    found = levels(said, lambda *stage: stages.append(stage))
    assert stages[-2:] == [("products with full caches", done, 3) for done in (0, 3)]
    whole = {what for what, done, number in stages if done == number}
    assert {what for what, _, _ in stages} - whole == {"waking threads"}
    assert len(whole) == 4
    for level in (found.plain, found.library, found.kept):
        assert level is None or 1e-7 < 1e-5 * math.exp(level) < 8e-5  # None on a busy machine
    assert said.asked["kept"] == 3
    assert said.asked.total() >= 9


def test_the_middle_one_counts_of_those_that_tell() -> None:
    estimates = [WarmEstimate(1e-6, 1e-5, gone) for gone in (1.0, 0.5, 0.8, 0.1)]
    found_s = [2.1e-5, 2.1e-5, 1.1e-5, 1.1e-4]
    # Where half of the work was gone, what is all gone is twice as far off.
    expected = [math.log(2.0), 2 * math.log(2.0), 0.0]
    *told, untold = warm._levels(found_s, estimates)
    assert told == pytest.approx(expected)
    assert untold == "gains too little by full caches"
    assert warm._median(expected) == pytest.approx(np.median(expected))
    assert warm._median(expected[1:]) is None


def test_nothing_is_said_of_functions_that_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "failed", lambda _: True)
    said = Said(1e-9, 1e-5)
    found = levels(said)
    assert (found.plain, found.library, found.kept) == (None, None, None)
    # Nothing ran alone, so no product was asked for.
    assert len(found.untold) == said.asked.total() + 3
    assert all(text.endswith(" failed") for text in found.untold)


@pytest.mark.parametrize(
    ("estimate", "why"),
    [
        ((1.0, 1.0), "is hardly more than its start"),
        ((1e-9, 1e-12), "waited for other programs"),
        ((1e-9, 1e-5, 0.1), "gains too little by full caches"),
    ],
)
def test_why_nothing_is_told_is_said(estimate: tuple[float, ...], why: str) -> None:
    assert warm._level(1.1e-5, WarmEstimate(*estimate)) == why
