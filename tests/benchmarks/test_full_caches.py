"""What functions take with full caches: two of them, measured, and what the table says."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import full_caches
from benchmarks.latency_tables import full_caches_section


def test_a_product_and_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("_ROWS", (1,)), ("_WIDTHS", (1024,)), ("_OUTPUTS", (1024,)), ("_CONVOLUTIONS", ()),
        ("_POOLS", ((64, 56),)),
    ):  # fmt: skip
        monkeypatch.setattr(full_caches, name, value)
    out = tmp_path / "full-caches.json"
    monkeypatch.setattr(sys, "argv", ["full_caches", "--passes", "1", "--out", str(out)])
    full_caches.main()
    result = json.loads(out.read_text())
    product, pool = result["rows"]
    assert (product["kind"], pool["kind"]) == ("product, 1 row", "pool")
    assert product["memory_bytes"] == 4 * (1024 + 1024 * 1024 + 1024)
    assert min(product["full_s"], product["empty_s"], pool["full_s"], pool["empty_s"]) > 0
    assert product["expected"] < pool["expected"] == 1.0
    result["rows"][0]["full_s"] = 1.9 * product["wake_s"]
    rows = [line for line in full_caches_section(out, result) if line.startswith("| p")]
    assert rows[0] == "| product, 1 row | 0 of 1 | - | - | - | - |"
    assert rows[1].startswith("| pool | 1 of 1 | ")
