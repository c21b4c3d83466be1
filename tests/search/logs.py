"""A log of two tiny tasks, with invented latencies, as a search leaves it."""

from pathlib import Path

import numpy as np

from tests.tiny_tasks import invent, matmul
from tvm_cdmpp.bridge import append_records, load_tvm
from tvm_cdmpp.workloads import write_workloads

TARGET = load_tvm().target.Target("llvm -mcpu=core-avx2 -num-cores=4 -model=epyc-7452")


def write_tiny_log(path: Path, programs: int = 9) -> Path:
    """Of each task a program fails, and others get slower and faster in turns."""
    tasks = [matmul(64, 64, 64, TARGET), matmul(128, 64, 32, TARGET)]
    for number, task in enumerate(tasks):
        latencies_s = 1e-5 * (1 + number) * np.geomspace(4, 1, programs)
        latencies_s[1] = 0.0
        append_records(path, *invent(task, list(latencies_s)))
    write_workloads(path, tasks)
    return path
