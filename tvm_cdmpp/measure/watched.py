"""A pool of workers that run programs on remote devices, and give up when these are gone.

TVM's own waits without end for a device that nobody offers any more.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import wait
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import MeasureError

_popen_pool: Any = load_tvm().contrib.popen_pool

_LOOK_EVERY_S = 1.0
_LOOKS = 2
"""So many times in a row there must be no device."""


class WatchedPool(_popen_pool.PopenPoolExecutor):
    """TVM's pool; what did not run when the devices were gone counts as timed out.

    Parameters
    ----------
    workers
        Programs at a time.
    timeout_s
        Time for one program, that of waiting for a device included.
    find_devices
        Raises `MeasureError` where there is none.
    uses
        Programs after which a worker starts afresh.
    """

    def __init__(
        self, workers: int, timeout_s: float, find_devices: Callable[[], object], uses: int
    ) -> None:
        super().__init__(workers, timeout_s, maximum_process_uses=uses)
        self._find_devices = find_devices

    def map_with_error_catching(self, fn: Any, iterator: Iterable[Any]) -> list[Any]:
        """Run a function on all arguments; see TVM's."""
        run = self._worker_run_with_error_catching
        running = [self._threadpool.submit(run, fn, (argument,), None) for argument in iterator]
        missing = 0
        while wait(running, _LOOK_EVERY_S).not_done:
            missing = missing + 1 if self._are_gone() else 0
            if missing >= _LOOKS:
                for future in running:
                    future.cancel()
                for worker in list(self._worker_map.values()):
                    if (process := worker._proc) is not None:
                        process.kill()  # `worker.kill` would wait for the thread that reads
        timed_out = _popen_pool.MapResult(_popen_pool.StatusKind.TIMEOUT, None)
        return [
            timed_out
            if future.cancelled() or future.result().status != _popen_pool.StatusKind.COMPLETE
            else future.result()
            for future in running
        ]

    def _are_gone(self) -> bool:
        try:
            self._find_devices()
        except MeasureError:
            return True
        return False
