"""The published comparison of cost models: runs it again and writes its JSON and PNG.

Run from anywhere: `python benchmarks/search_comparison.py`. It can be interrupted and goes on where
it was; logs are kept in the working folder.
"""

import shutil
import sys
from pathlib import Path

from tvm_cdmpp.cli.main import main

NAME = "resnet-18-untrained"
OUT = Path("compare-resnet-18")
RESULTS = Path(__file__).parent / "results"
SETTINGS = {
    "--models": "cdmpp,xgb-warm,random",
    "--trials": "144",
    "--seeds": "2",
    "--tasks": "6",
    "--round": "12",
    "--out": str(OUT),
}


if __name__ == "__main__":
    exit_code = main(
        ["compare", "resnet-18", *(word for pair in SETTINGS.items() for word in pair)]
    )
    if exit_code == 0:
        for suffix in (".json", ".png"):
            shutil.copyfile(OUT / f"comparison{suffix}", RESULTS / f"{NAME}{suffix}")
    sys.exit(exit_code)
