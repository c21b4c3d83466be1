"""The inputs of a network: what its file states of them, and what the user settles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tvm_cdmpp.errors import NetworkError

Shape: TypeAlias = tuple[int, ...]
OpenShape: TypeAlias = tuple[int | None, ...]
"""A shape as a file tells it; None for a size that is left open."""
InputSpecs: TypeAlias = dict[str, tuple[Shape, str]]
"""Per input of a network: shape and element type."""

MOST_BATCH = 1_000_000
"""No device holds more, and with far larger ones TVM does not come to an end."""
_USUAL_SIZE = 128
"""Of an image or a sequence, in examples."""
_MOST_SIZE = 2**31 - 1
"""What an index of TVM holds, which is of 32 bits."""


@dataclass(frozen=True, slots=True)
class InputWishes:
    """What a user says of a network's inputs, where its file leaves it open."""

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    """By input name."""
    batch: int | None = None
    """Size of first axes that are open."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Element types by input name, such as `float16`; only TorchScript leaves them open."""
    batch_option: str = "--batch"
    """The command line's option for the batch, as messages name it."""

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self.shapes or self.batch or self.dtypes)


def complete_shapes(
    path: Path, known: Mapping[str, OpenShape | None], wishes: InputWishes
) -> dict[str, Shape]:
    """Combine the shapes of the file (None where it does not say) with what the user wants."""
    _check_wishes(path, known, wishes)
    batched = {name: _with_batch(shape, wishes.batch) for name, shape in known.items()}
    complete: dict[str, Shape] = {}
    missing: list[str] = []
    for name, stated in batched.items():
        shape = wishes.shapes.get(name, stated)
        if shape is None or None in shape:
            missing.append(name)
            continue
        sizes = tuple(int(size) for size in shape if size is not None)
        if not all(1 <= size <= _MOST_SIZE for size in sizes):
            raise NetworkError(f"Sizes must be 1 to {_MOST_SIZE}; input {name} got {sizes}.")
        if not _fits(sizes, known[name]):
            raise NetworkError(
                f"Input {name} of {path} is {_written(known[name])}; got {_written(sizes)}. Sizes "
                "that the file states cannot be changed: save the network anew for others."
            )
        complete[name] = sizes
    if missing:
        asked = {name: batched[name] for name in missing}
        raise NetworkError(_ask_for_shapes(path, asked, wishes))
    return complete


def _check_wishes(path: Path, known: Mapping[str, OpenShape | None], wishes: InputWishes) -> None:
    """Refuse what contradicts the file or itself."""
    given = [*wishes.shapes, *wishes.dtypes]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise NetworkError(
            f"{path} has no input called {', '.join(unknown)}; its inputs are {', '.join(known)}."
        )
    for name, stated in known.items():
        if stated is not None and 0 in stated:
            raise NetworkError(
                f"Input {name} of {path} has the shape {_written(stated)}: with a size of 0 there "
                "is nothing to compute. Save the network with the sizes it is used with."
            )
    if wishes.batch and not _with_open_batch(known):
        shapes = ", ".join(f"{name} {_written(shape)}" for name, shape in known.items())
        raise NetworkError(
            f"No input of {path} has an open first size that a batch of {wishes.batch} could take; "
            f"its inputs are {shapes}."
        )
    for name in _with_open_batch(known) if wishes.batch else ():
        shape = wishes.shapes.get(name)
        if shape and shape[0] != wishes.batch:
            raise NetworkError(
                f"A batch of {wishes.batch} and the shape {_written(shape)} of input {name} "
                "disagree; give one of the two."
            )


def _with_batch(shape: OpenShape | None, batch: int | None) -> OpenShape | None:
    if batch is None or not shape or shape[0] is not None:
        return shape
    return (batch, *shape[1:])


def _with_open_batch(known: Mapping[str, OpenShape | None]) -> list[str]:
    return [name for name, shape in known.items() if shape is None or shape[:1] == (None,)]


def _fits(sizes: Shape, stated: OpenShape | None) -> bool:
    return stated is None or (
        len(sizes) == len(stated)
        and all(known in (None, size) for size, known in zip(sizes, stated, strict=True))
    )


def _written(shape: OpenShape | None) -> str:
    """Write a shape as the command line takes it, with ? for what is open."""
    if shape is None:
        return "of unknown shape"
    return "x".join("?" if size is None else str(size) for size in shape) or "a scalar"


def _example(shape: OpenShape | None, batch: int) -> Shape:
    """Return a shape that fits what is known, of sizes that networks may have."""
    if shape is None:
        return (batch, 3, 224, 224)
    usual = (batch, *[_USUAL_SIZE] * len(shape[1:]))
    return tuple(size or other for size, other in zip(shape, usual, strict=False))


def _ask_for_shapes(
    path: Path, missing: Mapping[str, OpenShape | None], wishes: InputWishes
) -> str:
    """Say what is open, and how to settle it: with an example that fits what is known."""
    said = ", ".join(f"{name} is {_written(shape)}" for name, shape in missing.items())
    examples = {name: _example(shape, wishes.batch or 1) for name, shape in missing.items()}
    options = " ".join(f"--input-shape {n}:{_written(shape)}" for n, shape in examples.items())
    by_batch = all(shape and None not in shape[1:] for shape in missing.values())
    either, python = options, ""
    if by_batch:
        either, python = f"{wishes.batch_option} N or {options}", "batch=N or "
    else:  # other sizes than the batch cannot be guessed
        either += ", with its own sizes"
    return (
        f"In {path}, {said}; give {either} (from Python: {python}input_shapes={examples!r}), or "
        "save the network with fixed sizes."
    )
