"""What Ansor tells a search about the machine, with every record."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class Hardware:
    """The hardware parameters of a task, in the order in which logs hold them.

    They describe what programs are generated for, coarsely; `DeviceSpec` describes the device.
    """

    cores: int = 1
    """CPU cores; not positive where that means nothing, as on GPUs."""
    vector_bytes: int = 64
    line_bytes: int = 64
    shared_bytes: int = 0
    """Shared memory for a block of GPU threads."""
    local_bytes: int = 0
    """Memory of one GPU thread."""
    threads: int = 0
    """GPU threads in a block."""
    vthreads: int = 0
    """Extent of virtual threads."""
    warp: int = 0
    """GPU threads that run in step."""

    @staticmethod
    def of(parameters: Any) -> Hardware:
        """Read `tvm.auto_scheduler.HardwareParams`."""
        return Hardware(
            int(parameters.num_cores),
            int(parameters.vector_unit_bytes),
            int(parameters.cache_line_bytes),
            int(parameters.max_shared_memory_per_block),
            int(parameters.max_local_memory_per_block),
            int(parameters.max_threads_per_block),
            int(parameters.max_vthread_extent),
            int(parameters.warp_size),
        )

    def values(self) -> tuple[float, ...]:
        """Return the parameters in order; sizes that divide others are at least one."""
        cores, vector, line, *rest = (float(value) for value in astuple(self))
        return (cores, max(vector, 1.0), max(line, 1.0), *rest)
