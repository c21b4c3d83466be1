"""A stopped run goes on with its own file, and with no other."""

from pathlib import Path

import pytest

from benchmarks.provenance import read_results, resume, write_json


def test_a_run_goes_on_where_its_settings_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "device.json"
    fresh = {"settings": {"budgets": (1, 2)}, "machine": "here", "runs": []}
    assert resume(fresh, path) is fresh
    write_json(path, fresh | {"runs": [7]})
    assert resume(fresh, path)["runs"] == [7]
    assert resume(fresh | {"machine": "there"}, path)["runs"] == [7]
    assert not capsys.readouterr().out
    assert resume(fresh | {"machine": "there"}, path, ("settings", "machine"))["runs"] == []
    assert resume(fresh | {"settings": {"budgets": (1, 3)}}, path)["runs"] == []
    assert capsys.readouterr().out.splitlines() == [
        "device.json is of other settings or machine; starting anew",
        "device.json is of other settings; starting anew",
    ]


def test_results_of_different_settings_are_not_put_together(tmp_path: Path) -> None:
    assert read_results(tmp_path / "missing") == []
    for name, seeds in (("b", 1), ("a", 1)):
        write_json(tmp_path / f"{name}.json", {"settings": {"seeds": seeds}, "device": name})
    assert [result["device"] for result in read_results(tmp_path)] == ["a", "b"]
    write_json(tmp_path / "c.json", {"settings": {"seeds": 2}, "device": "c"})
    with pytest.raises(ValueError, match=r"c\.json in .* must be of the settings of a\.json"):
        read_results(tmp_path)
