"""Products whose right matrix has its rows first: two of them, and what the table says."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import rows_first
from benchmarks.latency_tables import rows_first_section


def test_two_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("_ROWS", (16,)), ("_DEPTHS", (64,)), ("_COLUMNS", (48, 512)), ("_NUMBER", 2),
    ):  # fmt: skip
        monkeypatch.setattr(rows_first, name, value)
    out = tmp_path / "rows-first.json"
    monkeypatch.setattr(sys, "argv", ["rows_first", "--passes", "1", "--out", str(out)])
    rows_first.main()
    result = json.loads(out.read_text())
    rows = {row["sizes"][-1]: row for row in result["rows"]}
    assert min(row["measured_s"] for row in rows.values()) > 0
    told = {n: row["predicted_s"] / row["plain_s"] for n, row in rows.items()}
    assert told[512] > 3 * told[48]
    rows[48] |= {
        "measured_s": 3e-5,
        "plain_s": 1.5e-5,
        "predicted_s": 6e-5,
        "sizes": [1, 10, 10, 48],
    }
    result = {**result, "rows": [rows[48]], "settings": {"passes": 1, "clock_hz": 1e9, "cores": 2}}
    table = [line for line in rows_first_section(out, result) if line.startswith("| ")]
    assert table[1:] == [
        "| 64 bytes | 1 | 12.50 | 2.00 | 0.50 |",
        "| all | 1 | 12.50 | 2.00 (x 1.00) | 0.50 (x 1.00) |",
    ]
