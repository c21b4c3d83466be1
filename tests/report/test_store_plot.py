"""A small store is drawn on axes that fit it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.logs import import_all, records, write_log
from tvm_cdmpp.cli.data_info import store_overview
from tvm_cdmpp.data.store import RecordStore
from tvm_cdmpp.report.store_plot import draw_overview, plot_overview


def axes_of(folder: Path, made: list[Any]) -> dict[str, Any]:
    import_all(folder / "store", write_log(folder / "a.json", made))
    figure = draw_overview(store_overview(RecordStore.open(folder / "store")))
    figure.canvas.draw()
    return {axes.get_title().split(":")[0]: axes for axes in figure.axes}


@pytest.mark.parametrize("failed", [0, 2, 5])
def test_axes_fit_a_small_store(tmp_path: Path, failed: int) -> None:
    made = records(5)
    for record in made[:failed]:
        record["r"] = [[1e10], 4, 0.1, 5]
    axes = axes_of(tmp_path, made)
    for name in ("programs per device", "programs that failed (%)", "programs by operator"):
        low, high = axes[name].get_xlim()
        (bar,) = axes[name].patches
        assert (low, axes[name].get_xscale()) == (0, "linear")
        assert bar.get_width() < high < 1.5 * max(bar.get_width(), 1)
        bottom, top = axes[name].get_ylim()
        assert bar.get_height() < (top - bottom) / 5
    leaves = axes["share of a sample of 5 programs (%)"]
    ticks = leaves.get_xticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))
    splits = axes["programs in the official splits"]
    assert splits.texts[0].get_text() == "none can be made of this store"
    assert not splits.get_xticks().size
    latency = axes["latency (ms)"]
    if failed < 5:
        low, high = latency.get_xlim()
        assert 0.1 < low < 1.5 < 4 < high < 30
    else:
        assert latency.texts[0].get_text() == "no program ran"
    noise = axes["noise floor of the MAPE (%)"]
    assert noise.get_xticks().size == 0 if failed == 5 else noise.get_xscale() == "log"


def test_a_store_without_programs(tmp_path: Path) -> None:
    made = records(1)
    made[0]["i"][0][0] = '["nobody knows", 1]'
    axes = axes_of(tmp_path, made)
    assert axes["latency (ms)"].texts[0].get_text() == "no program ran"


def test_the_folder_is_made(tmp_path: Path) -> None:
    import_all(tmp_path / "store", write_log(tmp_path / "a.json", records(1)))
    file = tmp_path / "new" / "page.png"
    plot_overview(store_overview(RecordStore.open(tmp_path / "store")), file)
    assert file.read_bytes().startswith(b"\x89PNG")
