"""What TVM's child processes run in place of `tvm.exec.popen_worker`.

They get it as text, as they need not find this package, of which it imports nothing.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_OWN_THREADS = ("USE_OPENMP", "USE_MKL", "USE_BLAS", "USE_DNNL", "USE_MKLDNN", "USE_MKLML")
"""Parts of a TVM that start threads of their own, which would have to share the caller's core."""
_LEFT_OUT = frozenset({"", "0", "off", "no", "false", "none", "not-found"})


def memoize_in_memory() -> None:
    """Keep TVM, which is imported after this, from keeping pickles in the current folder.

    Its own memoizing makes a folder of them wherever a process is started, fails where that cannot
    be, and reads what it finds there.
    """
    module = ModuleType("tvm.contrib.pickle_memoize")
    module.memoize = lambda key, save_at_exit=False: functools.cache  # type: ignore[attr-defined]
    sys.modules.setdefault(module.__name__, module)


@contextmanager
def off_worker_cores() -> Iterator[None]:
    """Keep this thread from the cores that TVM's worker threads are bound to, in the `with` block.

    TVM binds its workers, each to a core, but not the thread that calls, which computes, too. The
    scheduler may put it next to a worker, for long, as both never sleep. Then what should run side
    by side runs in turns: handing a loop to two threads takes 2.9 us and not 0.8.

    Nothing changes where the system cannot bind threads, where TVM has bound none, and where it was
    built with libraries that have threads of their own.
    """
    import tvm

    core = _free_core(tvm) if hasattr(os, "sched_setaffinity") else None
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_core(tvm: Any) -> int | None:
    """Return the first core of this thread to which no worker is bound."""
    built = {name: str(value).lower() for name, value in tvm.support.libinfo().items()}
    start_workers = tvm.get_global_func("runtime.NumThreads", allow_missing=True)
    if start_workers is None or any(built.get(name, "") not in _LEFT_OUT for name in _OWN_THREADS):
        return None
    start_workers()
    bound = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            cores = os.sched_getaffinity(int(thread.name))
            if int(thread.name) != threading.get_native_id() and len(cores) == 1:
                bound |= cores
    free = os.sched_getaffinity(0) - bound
    return min(free) if bound and free else None


def _time_off_worker_cores(module: Any) -> None:
    """Let what times the programs of a class of TVM's modules keep off the workers' cores."""
    original = module.time_evaluator

    @functools.wraps(original)
    def time_evaluator(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        evaluate = original(*args, **kwargs)

        def evaluate_off_worker_cores(*arguments: Any) -> Any:
            with off_worker_cores():
                return evaluate(*arguments)

        return evaluate_off_worker_cores

    module.time_evaluator = time_evaluator


def _main() -> None:
    memoize_in_memory()
    import tvm
    from tvm.exec.popen_worker import main

    _time_off_worker_cores(tvm.runtime.Module)
    main()


if __name__ == "__main__":
    _main()
