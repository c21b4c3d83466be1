"""Tasks whose layout-free constants are, or are not, stored in the order they are read in."""

from __future__ import annotations

from typing import Any

from tests.extract import sampling

AS_GIVEN, COPIED, REWRITTEN = range(3)
"""TVM's options: no rewriting, a copy made by the program, rewriting before it."""


def with_layouts(task: Any, option: int) -> Any:
    """Make a task anew, with another option."""
    return sampling.auto_scheduler.SearchTask(
        workload_key=task.workload_key,
        target=task.target,
        hardware_params=task.hardware_params,
        layout_rewrite_option=option,
    )
