"""What it is worth to time programs on a core that none of TVM's worker threads is bound to.

    python -m benchmarks.worker_cores [--passes 300] [--out FILE]

A product of matrices on all cores is timed in TVM's child process as Ansor times programs, right
after others were built on all cores, as in a search: in turns as TVM does it, and off the workers'
cores (`bridge/child.py`). The mean of ten runs is what a search would learn.

A run of 300 passes takes two minutes on a quiet machine with two cores.
"""

import argparse
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.provenance import RESULTS, provenance, write_json
from tvm_cdmpp.bridge import default_target, load_tvm
from tvm_cdmpp.devices import read_host_cpu

tvm = load_tvm()

_SIZE = 256
_RUNS = 10


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="Timing off the cores of TVM's worker threads.")
    parser.add_argument("--passes", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS / "worker-cores.json")
    args = parser.parse_args()
    found_s: dict[str, list[float]] = {"as TVM does": [], "off the workers' cores": []}
    cores = read_host_cpu().physical_cores
    with TemporaryDirectory() as folder, get_context("spawn").Pool(cores) as others:
        library = Path(folder, "product.so")
        _build(str(library))
        worker = tvm.contrib.popen_pool.PopenWorker()
        for number in range(args.passes):
            for way, seconds in list(found_s.items())[:: 1 if number % 2 else -1]:
                others.map(_build, [str(Path(folder, f"{core}.so")) for core in range(cores)])
                worker.send(_mean_s, [str(library), way == "as TVM does"])
                seconds.append(worker.recv())
            print(f"pass {number + 1} of {args.passes}", end="\r", flush=True)
    settings = {"passes": args.passes, "size": _SIZE}
    write_json(args.out, {**provenance(), "settings": settings, "seconds": found_s})


def _product() -> Any:
    """Build a product of matrices whose rows are divided among the cores."""
    a, b = (tvm.te.placeholder((_SIZE, _SIZE), name=name) for name in "AB")
    k = tvm.te.reduce_axis((0, _SIZE), name="k")
    c = tvm.te.compute((_SIZE, _SIZE), lambda i, j: tvm.te.sum(a[i, k] * b[k, j], axis=k))
    schedule = tvm.te.create_schedule(c.op)
    i, j = c.op.axis
    outer, inner = schedule[c].split(j, 16)
    schedule[c].reorder(i, outer, k, inner)
    schedule[c].parallel(i)
    schedule[c].vectorize(inner)
    return tvm.build(schedule, [a, b, c], default_target())


def _mean_s(library: str, as_tvm_does: bool) -> float:
    """Time the product, in the child process."""
    timer_of = tvm.runtime.Module.time_evaluator
    if as_tvm_does:
        timer_of = timer_of.__wrapped__
    module, cpu = tvm.runtime.load_module(library), tvm.cpu(0)
    arrays = [tvm.nd.array(np.ones((_SIZE, _SIZE), np.float32)) for _ in range(3)]
    flush = "cache_flush_cpu_non_first_arg"
    timer = timer_of(module, module.entry_name, cpu, number=1, repeat=_RUNS, f_preproc=flush)
    return float(np.mean(timer(*arrays).results))


def _build(library: str) -> None:
    """Build the product and link it, in a process of its own."""
    _product().export_library(library)


if __name__ == "__main__":
    main()
