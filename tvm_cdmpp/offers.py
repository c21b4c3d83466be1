"""What a room offers: the imports that its `__init__` names for type checkers, made when asked for.

So a room can be imported from as a whole, and still nobody loads torch, pyarrow or TVM for
something that does without. The names stand once, under `if TYPE_CHECKING:`.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any


def offer(room: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__` from the imports in its source.

    Parameters
    ----------
    room
        The package's `__name__`.
    """
    module = sys.modules[room]
    homes = {
        alias.name: statement.module
        for block in ast.parse(inspect.getsource(module)).body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return get, lambda: sorted({*homes, *vars(module)})
