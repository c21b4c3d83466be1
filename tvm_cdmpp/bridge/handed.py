"""Whether what a caller hands over is what TVM makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import ConfigError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler
_STATES = (auto_scheduler.loop_state.State, auto_scheduler.loop_state.StateObject)


def check_task(task: Any) -> None:
    """Refuse what is no task.

    Raises
    ------
    ConfigError
        It is no `SearchTask`.
    """
    _check_all([task], auto_scheduler.SearchTask, "a SearchTask")


def check_states(states: Sequence[Any], shapes: tuple[str, ...]) -> None:
    """Refuse what are no states of a task; only the first is compared, to save time.

    Parameters
    ----------
    states
        At least one; those in TVM's own array are taken for states.
    shapes
        `shapes_of` any state of the task.

    Raises
    ------
    ConfigError
        One is no state, or the first is one of another task.
    """
    if not isinstance(states, tvm.ir.Array):
        _check_all(states, _STATES, "states of auto_scheduler")
    found = shapes_of(states[0])
    if found != shapes:
        raise ConfigError(
            f"Expected states of this task, whose tensors are {', '.join(shapes)}; got some of "
            f"another, whose are {', '.join(found)}."
        )


def check_measurements(inputs: Sequence[Any], results: Sequence[Any]) -> None:
    """Refuse what are no measurements.

    Raises
    ------
    ConfigError
        Not all are `MeasureInput` and `MeasureResult`, or there are not as many of both.
    """
    if len(inputs) != len(results):
        raise ConfigError(
            "update needs one result per input; got "
            f"{len(inputs)} inputs and {len(results)} results."
        )
    _check_all(inputs, auto_scheduler.MeasureInput, "MeasureInput")
    _check_all(results, auto_scheduler.MeasureResult, "MeasureResult")


def shapes_of(state: Any) -> tuple[str, ...]:
    """Return the shapes of what a state reads and of its last output, which no step changes."""
    operations = [stage.op for stage in getattr(state, "state_object", state).stages]
    read = [op for op in operations if isinstance(op, tvm.te.PlaceholderOp)]
    shapes = (op.output(0).shape for op in (*read, operations[-1]))
    return tuple("x".join(map(str, shape)) for shape in shapes)


def _check_all(found: Sequence[Any], kind: Any, expected: str) -> None:
    others = {cls.__name__ for cls in set(map(type, found)) if not issubclass(cls, kind)}
    if others:
        raise ConfigError(f"Expected {expected}; got {', '.join(sorted(others))}.")
