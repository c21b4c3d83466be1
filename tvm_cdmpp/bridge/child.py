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

    TVM binds its workers, each to a core, but not the thread that calls, which computes, too. When
    that one wakes, the scheduler may put it next to a worker, and leave it there, as workers wait
    without sleeping. Then what should run side by side runs in turns.

    The thread stays where it may be now where the system cannot bind threads, where TVM has bound
    none or leaves no core free, and where it was built with libraries that have threads of their
    own.
    """
    import tvm

    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    given = os.sched_getaffinity(0)  # TVM changes it as it starts its workers
    with suppress(OSError):
        core = _free_core(tvm, given)
        os.sched_setaffinity(0, given if core is None else {core})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, given)


def _free_core(tvm: Any, given: set[int]) -> int | None:
    """Return the first of some cores to which no worker is bound."""
    start_workers = tvm.get_global_func("runtime.NumThreads", allow_missing=True)
    if start_workers is None or _has_own_threads():
        return None
    start_workers()
    bound = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            cores = os.sched_getaffinity(int(thread.name))
            if int(thread.name) != threading.get_native_id() and len(cores) == 1:
                bound |= cores
    free = given - bound
    return min(free) if bound and free else None


@functools.cache
def _has_own_threads() -> bool:
    """Return whether TVM has parts that start threads, which would have to share this core."""
    import tvm

    built = {name: str(value).lower() for name, value in tvm.support.libinfo().items()}
    return any(built.get(name, "") not in _LEFT_OUT for name in _OWN_THREADS)


def _time_off_worker_cores(module: Any) -> None:
    """Let what times the programs of a class of TVM's modules keep off the workers' cores."""
    original = module.time_evaluator

    @functools.wraps(original)
    def time_evaluator(self: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        evaluate: Callable[..., Any] = original(self, *args, **kwargs)
        if self.type_key == "rpc":
            return evaluate  # which runs elsewhere

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
