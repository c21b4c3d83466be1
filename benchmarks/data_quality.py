"""How good the labels of published measurements are, and how large the official splits.

    python -m benchmarks.data_quality STORE

describes a record store as `tvm-cdmpp data info --alike` does, and writes
`results/data-quality.json` and the page of plots `results/data-info.png`.
"""

import argparse
from pathlib import Path

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.cli.data_info import store_overview
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.report import plot_overview
from tvm_cdmpp.train import group_alike


def main() -> None:
    """Describe the store, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="folder of the record store")
    args = parser.parse_args()
    store = RecordStore.open(args.store)
    overview = store_overview(store, group_alike(store))
    write_json(
        RESULTS / "data-quality.json",
        {**provenance("pyarrow", "numpy"), "content_hash": store.content_hash, **overview},
    )
    plot_overview(overview, RESULTS / "data-info.png")


if __name__ == "__main__":
    main()
