"""The published comparison of cost models: runs it again and writes its JSON and PNG.

Run from anywhere: `python -m benchmarks.search_comparison`. It can be interrupted and goes on where
it was; logs are kept in the working folder. With `--redraw` nothing is measured: the PNG is made
from the JSON that is there.
"""

import shutil
import sys
from pathlib import Path

from tvm_cdmpp.cli.main import main
from tvm_cdmpp.report import plot_comparison
from tvm_cdmpp.search import SearchComparison

OUT = Path("compare-resnet-18")
RESULT = Path(__file__).parent / "results" / "resnet-18-untrained.json"
SETTINGS = {
    "--models": "cdmpp-untrained,xgb-warm,random",
    "--trials": "144",
    "--seeds": "2",
    "--tasks": "6",
    "--round": "12",
    "--out": str(OUT),
}


def run() -> int:
    """Compare again, and publish the result."""
    exit_code = main(
        ["compare", "resnet-18", *(word for pair in SETTINGS.items() for word in pair)]
    )
    if exit_code == 0:
        shutil.copyfile(OUT / "comparison.json", RESULT)
        redraw()
    return exit_code


def redraw() -> None:
    """Draw the published result."""
    comparison = SearchComparison.from_json(RESULT.read_text(encoding="utf-8"))
    plot_comparison(comparison, RESULT.with_suffix(".png"))


if __name__ == "__main__":
    if sys.argv[1:] == ["--redraw"]:
        redraw()
    else:
        sys.exit(run())
