"""The compiled part of the fast path, behind ctypes.

The sources next to this file are C++17 without dependencies, not even Python's headers; installing
the package compiles them.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import COUNTED_COLUMNS, FIELDS, LOOP_KINDS, NUM_FIELDS, Leaf
from tvm_cdmpp.devices import Hardware
from tvm_cdmpp.errors import MissingDependencyError, RecordError
from tvm_cdmpp.extract.encode import encode_graph
from tvm_cdmpp.extract.limits import LIMITS, ExceededLimit
from tvm_cdmpp.extract.native.packing import pack, unpack
from tvm_cdmpp.extract.stage import LayoutRewrite, TaskGraph

_INTS = ctypes.POINTER(ctypes.c_int64)
_FLOATS = ctypes.POINTER(ctypes.c_float)
_DOUBLES = ctypes.POINTER(ctypes.c_double)
_Scalar = TypeVar("_Scalar", bound=np.generic)
_COUNTED = np.array(COUNTED_COLUMNS, dtype=np.int64)
_STAGES_OF_WORK = ("parse", "apply", "features")


@dataclass(frozen=True)
class NativeResult:
    """Compact ASTs of some records, and what is wrong with the others."""

    vectors: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int32]
    leaf_counts: npt.NDArray[np.int64]
    unscaled: npt.NDArray[np.float32]
    errors: dict[int, RecordError]
    exceeded: dict[int, ExceededLimit]


@dataclass(frozen=True)
class StageLoops:
    """The loops of a stage after some transform steps."""

    has_loops: bool
    """False for inputs and stages that are inlined."""
    num_axes: int
    """Loops that it has before any step."""
    consumer: int
    """The stage that reads it, or in whose loops all stages are that do; -1 if there is none."""
    attached: tuple[int, int] | None
    """The stage that it is computed in, and at which of its loops; None for none."""
    loops: tuple[tuple[bool, str], ...]
    """Outermost first: whether it reduces, and its kind, one of `LOOP_KINDS`."""


class TVMFunctions(ctypes.Structure):
    """Addresses of functions of TVM, in the order of handover.h."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("call", "free", "array_item", "array", "measure_input", "save_records")
    )


@cache
def _library() -> ctypes.CDLL:
    """Load the compiled library, and check that it was made from these sources.

    Raises
    ------
    MissingDependencyError
        If it was not compiled, or from sources of another version.
    """
    folder = Path(__file__).parent
    found = [p for s in EXTENSION_SUFFIXES if (p := folder / f"_native{s}").is_file()]
    if not found:
        raise MissingDependencyError(
            f"The compiled part of tvm_cdmpp is missing; expected a file _native.*.so in {folder}. "
            "It is compiled when the package is installed, which needs a C++ compiler: install g++ "
            "or clang, then install tvm_cdmpp again."
        )
    library = ctypes.CDLL(str(found[0]))
    signatures = {
        "new": (ctypes.c_void_p, [_INTS, ctypes.c_int64, ctypes.c_int, _DOUBLES]),
        "free": (None, [ctypes.c_void_p]),
        "extract": (ctypes.c_int64, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64]),
        "add_skeleton": (ctypes.c_int64, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64]),
        "extract_numbers": (
            ctypes.c_int64,
            [ctypes.c_void_p, _INTS, _INTS, ctypes.c_int64, ctypes.c_int64],
        ),
        "loops": (_INTS, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, _INTS]),
        "release": (None, [ctypes.c_void_p]),
        "scaled": (
            ctypes.c_int,
            [ctypes.c_void_p, _INTS, ctypes.c_int64, _FLOATS, _FLOATS],
        ),
        "positions": (ctypes.POINTER(ctypes.c_int32), [ctypes.c_void_p]),
        "counts": (ctypes.POINTER(ctypes.c_int32), [ctypes.c_void_p]),
        "excesses": (_INTS, [ctypes.c_void_p]),
        "error": (ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int64]),
        "seconds": (_DOUBLES, [ctypes.c_void_p]),
        "leaves": (_INTS, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, _INTS]),
        "describe": (
            ctypes.c_int,
            [_INTS, ctypes.c_int64, _DOUBLES, _FLOATS],
        ),
        "hand_over": (
            ctypes.c_int,
            [
                ctypes.POINTER(TVMFunctions),
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_int64,
                ctypes.c_void_p,
                ctypes.c_char_p,
            ],
        ),
        "field_names": (ctypes.c_char_p, []),
        "field_is_log": (ctypes.POINTER(ctypes.c_float), []),
    }
    of_another = (
        f"The compiled part of tvm_cdmpp, {found[0]}, is of another version: {{}}. Install "
        "tvm_cdmpp again, which compiles it anew."
    )
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"cdmpp_{name}", None)
        if function is None:
            raise MissingDependencyError(of_another.format(f"it has no cdmpp_{name}"))
        function.restype, function.argtypes = result, arguments
    compiled = library.cdmpp_field_names().decode().split()
    if compiled != [field.name for field in FIELDS]:
        raise MissingDependencyError(
            of_another.format(
                f"its computation vectors have {len(compiled)} fields that are not the "
                f"{NUM_FIELDS} of the schema"
            )
        )
    return library


def hand_over(
    functions: TVMFunctions,
    task: ctypes.c_void_p,
    states: ctypes.c_void_p,
    count: int,
    result: ctypes.c_void_p,
    path: str,
) -> bool:
    """Append a line of an Ansor log per state of an array to a file; False if TVM failed."""
    outcome = _library().cdmpp_hand_over(
        ctypes.byref(functions), task, states, count, result, path.encode()
    )
    if outcome < 0:
        raise MemoryError(f"no memory to hand {count} states over")
    return bool(outcome)


def compiled_fields() -> list[tuple[str, bool]]:
    """Return name of every field of a computation vector, and whether it is a logarithm."""
    library = _library()
    names = library.cdmpp_field_names().decode().split()
    is_log = library.cdmpp_field_is_log()[: len(names)]
    return [(name, flag != 0) for name, flag in zip(names, is_log, strict=True)]


class NativeExtractor:
    """Extracts the records of one task; see `extract.extractor.StepExtractor`."""

    def __init__(self, graph: TaskGraph, hardware: Hardware, layout: LayoutRewrite) -> None:
        library = _library()
        encoded = np.asarray(encode_graph(graph), dtype=np.int64)
        handle = library.cdmpp_new(
            encoded.ctypes.data_as(_INTS), len(encoded), layout, _pointer(hardware)
        )
        assert handle, "the encoding of a graph does not fit the compiled code"
        self._handle = ctypes.c_void_p(handle)
        self._finalizer = weakref.finalize(self, library.cdmpp_free, self._handle)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far, by stage of the work."""
        values = _library().cdmpp_seconds(self._handle)
        return dict(zip(_STAGES_OF_WORK, values[: len(_STAGES_OF_WORK)], strict=True))

    def extract(self, records: bytes) -> NativeResult:
        """Extract all records of a text, one per line."""
        library = _library()
        try:
            count = library.cdmpp_extract(self._handle, records, len(records))
            if count < 0:
                raise MemoryError(
                    f"no memory for the compact ASTs of {len(records)} bytes of records"
                )
            return self._results(count)
        finally:
            library.cdmpp_release(self._handle)

    def add_skeleton(self, record: bytes) -> int:
        """Keep the steps of a record as a skeleton, and return its number."""
        number: int = _library().cdmpp_add_skeleton(self._handle, record, len(record))
        if number < 0:
            raise RecordError(f"the steps of a skeleton cannot be read: {record[:80]!r}...")
        return number

    def extract_numbers(
        self, skeletons: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
    ) -> NativeResult:
        """Extract skeletons, given by number, with the numbers of each; (programs, width).

        Programs beyond a limit get no leaves.
        """
        library = _library()
        skeletons, numbers = np.ascontiguousarray(skeletons), np.ascontiguousarray(numbers)
        count, width = numbers.shape
        assert skeletons.shape == (count,)
        assert skeletons.dtype == numbers.dtype == np.int64
        try:
            done = library.cdmpp_extract_numbers(
                self._handle, skeletons.ctypes.data_as(_INTS), numbers.ctypes.data_as(_INTS),
                width, count,
            )  # fmt: skip
            if done < 0:
                raise MemoryError(f"no memory for the compact ASTs of {count} programs")
            return self._results(done)
        finally:
            library.cdmpp_release(self._handle)

    def loops(self, record: bytes) -> list[StageLoops]:
        """Return the loops of every stage after a record's steps.

        Raises
        ------
        RecordError
            The steps do not fit the task.
        """
        size = ctypes.c_int64()
        packed = _library().cdmpp_loops(self._handle, record, len(record), ctypes.byref(size))
        if size.value < 0:
            raise MemoryError("no memory for the loops of a program")
        if not packed:
            raise self._error(0)
        return _unpack_loops(packed[: size.value])

    def _results(self, count: int) -> NativeResult:
        """Copy what the last call made."""
        library = _library()
        counts = _copied(library.cdmpp_counts(self._handle), count, np.int32).astype(np.int64)
        leaves = int(counts.sum())
        vectors = np.empty((leaves, NUM_FIELDS), dtype=np.float32)
        unscaled = np.empty((leaves, len(_COUNTED)), dtype=np.float32)
        if not library.cdmpp_scaled(
            self._handle, _COUNTED.ctypes.data_as(_INTS), len(_COUNTED),
            vectors.ctypes.data_as(_FLOATS), unscaled.ctypes.data_as(_FLOATS),
        ):  # fmt: skip
            raise MemoryError(f"no memory to scale {leaves} computation vectors")
        positions = _copied(library.cdmpp_positions(self._handle), leaves, np.int32)
        excesses = _copied(library.cdmpp_excesses(self._handle), 3 * count, np.int64).reshape(-1, 3)
        exceeded = {
            int(record): ExceededLimit(LIMITS[limit], got, allowed)
            for record in np.flatnonzero(excesses[:, 0] >= 0)
            for limit, got, allowed in [excesses[record].tolist()]
        }
        # A program has at least one leaf, so a record without any is one that failed, or exceeds.
        failed = np.flatnonzero((counts == 0) & (excesses[:, 0] < 0)).tolist()
        errors = {record: self._error(record) for record in failed}
        return NativeResult(vectors, positions, counts, unscaled, errors, exceeded)

    def leaves(self, record: bytes, names: Sequence[str]) -> list[Leaf] | RecordError:
        """Return the leaves of one record, or what is wrong with it.

        Parameters
        ----------
        record
            A line of a log.
        names
            Names of the DAG's operations.
        """
        size = ctypes.c_int64()
        packed = _library().cdmpp_leaves(self._handle, record, len(record), ctypes.byref(size))
        if size.value < 0:
            raise MemoryError(f"no memory for the leaves of {len(record)} bytes of a record")
        if not packed:
            return self._error(0)
        return unpack(packed[: size.value], names)

    def _error(self, record: int) -> RecordError:
        message: bytes = _library().cdmpp_error(self._handle, record)
        return RecordError(message.decode(errors="replace"))


def describe(leaves: Sequence[Leaf], hardware: Hardware) -> npt.NDArray[np.float32]:
    """Return the computation vectors of one program's leaves.

    Parameters
    ----------
    leaves
        All leaves of the program, in pre-order.
    hardware
        What the search is told about the machine.

    Returns
    -------
    vectors
        Of shape (leaves, NUM_FIELDS).
    """
    packed = np.asarray(pack(leaves), dtype=np.int64)
    vectors = np.empty((len(leaves), NUM_FIELDS), dtype=np.float32)
    fine = _library().cdmpp_describe(
        packed.ctypes.data_as(_INTS),
        len(packed),
        _pointer(hardware),
        vectors.ctypes.data_as(_FLOATS),
    )
    assert fine, "the packing of leaves does not fit the compiled code"
    return vectors


def _unpack_loops(packed: Sequence[int]) -> list[StageLoops]:
    stages, first = [], 1
    for _ in range(packed[0]):
        has_loops, num_axes, consumer, target, at, count = packed[first : first + 6]
        own = packed[first + 6 : first + 6 + 2 * count]
        first += 6 + len(own)
        kinds = map(LOOP_KINDS.__getitem__, own[1::2])
        loops = tuple(zip(map(bool, own[::2]), kinds, strict=True))
        attached = None if target < 0 else (target, at)
        stages.append(StageLoops(bool(has_loops), num_axes, consumer, attached, loops))
    return stages


def _pointer(hardware: Hardware) -> ctypes.Array[ctypes.c_double]:
    values = hardware.values()
    return (ctypes.c_double * len(values))(*values)


def _copied(pointer: Any, count: int, scalar: type[_Scalar]) -> npt.NDArray[_Scalar]:
    values = np.empty(count, dtype=scalar)
    if count > 0:  # else the pointer may be null
        values[:] = np.ctypeslib.as_array(pointer, shape=(count,))
    return values
