"""Every Python block of the README and of docs/ runs as it stands, one file after the other.

Only budgets are smaller: fewer trials, and Ansor's search with a smaller population.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.logs import book, import_all, log_file, records, write_log

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SMALLER = """
from tvm_cdmpp import load_tvm
load_tvm().auto_scheduler.SketchPolicy.DEFAULT_PARAMS.update(
    evolutionary_search_population=64, evolutionary_search_num_iters=1,
    sample_init_min_population=16)
"""


def blocks_of(file: Path) -> list[str]:
    return _BLOCK.findall(file.read_text(encoding="utf-8"))


def test_the_readme_has_python() -> None:
    assert "CDMPPModel" in "".join(blocks_of(ROOT / "README.md"))


@pytest.mark.parametrize(
    "file", [file for file in FILES if blocks_of(file)], ids=lambda file: file.name
)
def test_python_blocks_run(file: Path, tmp_path: Path) -> None:
    logs = [
        log_file(write_log(tmp_path / f"{network}.json", records(9, size)), "here", network=network)
        for network, size in (("alexnet", 37), ("vgg_16", 80), ("resnet_50", 96))
    ]
    import_all(tmp_path / "store", *logs, known=book(37, 80, 96))
    for log in tmp_path.glob("*.json"):
        log.unlink()
    code = "\n".join(blocks_of(file))
    trials = re.compile(r"num_measure_trials=\d+")
    program = _SMALLER + trials.sub("num_measure_trials=4", code)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    for log in tmp_path.glob("*.json"):
        results = [json.loads(line)["r"] for line in log.read_text().splitlines()]
        assert any(error == 0 for _, error, *_ in results), f"no program of {log.name} ran"


def test_links_between_pages_lead_somewhere() -> None:
    for file in FILES:
        prose = _CODE.sub("", file.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose):
            assert (file.parent / link).exists(), f"{file.name} links to {link}"
