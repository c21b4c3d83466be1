"""Index expressions, and what the compiled code says of them, against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.extract.records import record_of
from tvm_cdmpp.errors import RecordError
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.index import Axis, FloorDiv, FloorMod, Index, Opaque, axis_index
from tvm_cdmpp.extract.stage import Read, StageSpec, TaskGraph

NUM_AXES = 3
LARGE = 10**6  # no index here reaches as far
EXTENTS = st.tuples(*[st.integers(1, 5)] * NUM_AXES)
POINTS = st.tuples(*[st.integers(-6, 9)] * NUM_AXES)


def value(index: Index, point: Sequence[int]) -> int:
    """Evaluate an index, the obvious way."""
    total = index.constant
    for atom, coefficient in index.terms:
        if isinstance(atom, Axis):
            total += coefficient * point[atom.number]
        elif isinstance(atom, FloorDiv):
            total += coefficient * (value(atom.inner, point) // atom.divisor)
        elif isinstance(atom, FloorMod):
            total += coefficient * (value(atom.inner, point) % atom.divisor)
        else:
            raise AssertionError(atom)
    return total


@st.composite
def affine(draw: st.DrawFn, least: int = -4, constants: bool = True) -> Index:
    index = Index((), draw(st.integers(-5, 5)) if constants else 0)
    for axis in draw(st.sets(st.integers(0, NUM_AXES - 1))):
        index = index + axis_index(axis).scaled(draw(st.integers(least, 4)))
    return index


@st.composite
def nested(draw: st.DrawFn, least: int = -4, constants: bool = True, depth: int = 2) -> Index:
    """Sums of axes, floor divisions and floor modulos, `depth` deep."""
    index = draw(affine(least, constants))
    for _ in range(draw(st.integers(0, 2)) if depth else 0):
        inner = draw(nested(least, constants, depth - 1))
        divisor = draw(st.integers(1, 6))
        atom = inner.floordiv(divisor) if draw(st.booleans()) else inner.floormod(divisor)
        index = index + atom.scaled(draw(st.integers(least, 3)))
    return index


def box(extents: Sequence[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(extent) for extent in extents)))


def interval(index: Index, extents: Sequence[int]) -> int:
    values = [value(index, point) for point in box(extents)]
    return max(values) - min(values) + 1


def read_through(index: Index, extents: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """How far a read reaches, level by level, and its steps, as the compiled code has them.

    A level per axis and one more, whatever the extents: the two for axes that do not move, and
    zero for their steps, are filled in.
    """
    source = StageSpec("A", (LARGE,), 4, 1, (LARGE,), is_placeholder=True)
    reader = StageSpec("B", extents, 4, NUM_AXES, extents, (Read(0, (index,)),), is_output=True)
    (leaves,) = StepExtractor(TaskGraph((source, reader))).leaves(record_of([]))
    assert not isinstance(leaves, RecordError)
    (leaf,) = leaves
    (cover,), steps = leaf.accesses[1].cover, list(leaf.accesses[1].steps)
    assert [loop.extent for loop in leaf.loops] == [extent for extent in extents if extent > 1]
    levels = [sum(e > 1 for e in extents[:axis]) for axis in range(NUM_AXES + 1)]
    moved = [steps.pop(0) if extent > 1 else 0 for extent in extents]
    return [cover[level] for level in levels], moved


def intervals(index: Index, extents: tuple[int, ...]) -> list[int]:
    """For each level the values reached while the axes from that one inward run."""
    outer = [(1,) * axis for axis in range(NUM_AXES + 1)]
    return [interval(index, (*ones, *extents[len(ones) :])) for ones in outer]


@given(affine(), EXTENTS)
def test_affine_indices_reach_what_they_touch(index: Index, extents: tuple[int, ...]) -> None:
    assert read_through(index, extents)[0] == intervals(index, extents)


@given(nested(), EXTENTS)
def test_no_index_reaches_further_than_it_is_said_to(
    index: Index, extents: tuple[int, ...]
) -> None:
    pairs = zip(read_through(index, extents)[0], intervals(index, extents), strict=True)
    assert all(said >= touched for said, touched in pairs)


@given(st.integers(1, 40), st.integers(1, 9))
def test_one_quotient_or_remainder_is_exact(extent: int, divisor: int) -> None:
    for index in (axis_index(0).floordiv(divisor), axis_index(0).floormod(divisor)):
        extents = (extent, 1, 1)
        assert read_through(index, extents)[0] == intervals(index, extents)


@given(nested(), EXTENTS)
def test_steps_are_distances_from_the_origin(index: Index, extents: tuple[int, ...]) -> None:
    units = np.eye(NUM_AXES, dtype=int).tolist()
    moved = [abs(value(index, unit) - value(index, (0,) * NUM_AXES)) for unit in units]
    expected = [step if extent > 1 else 0 for step, extent in zip(moved, extents, strict=True)]
    assert read_through(index, extents)[1] == expected


def test_opaque_indices_reach_everything_and_do_not_move() -> None:
    opaque = Index(((Opaque("gather", axis_index(1)), 1),)) + axis_index(0)
    for index in (opaque, opaque.floordiv(3), opaque.floormod(3).scaled(2) + axis_index(1)):
        assert index.opaque
    assert not axis_index(0).floordiv(3).opaque
    # It stands still where the axis that it depends on does.
    assert read_through(opaque, (3, 5, 2)) == ([LARGE, LARGE, 1, 1], [1, 0, 0])


@given(nested(), st.tuples(*[nested(depth=1)] * NUM_AXES), EXTENTS)
def test_inlining_composes(index: Index, axes: tuple[Index, ...], extents: tuple[int, ...]) -> None:
    """The steps of a read through an inlined stage are those of the composed index."""
    shape = (LARGE,) * NUM_AXES
    stages = (
        StageSpec("A", (LARGE,), 4, 1, (LARGE,), is_placeholder=True),
        StageSpec("B", shape, 4, NUM_AXES, shape, (Read(0, (index,)),)),
        StageSpec("C", extents, 4, NUM_AXES, extents, (Read(1, axes),), is_output=True),
    )
    (leaves,) = StepExtractor(TaskGraph(stages)).leaves(record_of([["CI", 1]]))
    assert not isinstance(leaves, RecordError)
    (leaf,) = leaves

    def composed(point: Sequence[int]) -> int:
        return value(index, [value(axis, point) for axis in axes])

    units = [unit for unit, e in zip(np.eye(NUM_AXES, dtype=int), extents, strict=True) if e > 1]
    moved = tuple(abs(composed(unit.tolist()) - composed((0,) * NUM_AXES)) for unit in units)
    assert leaf.accesses[1].steps == moved


@given(nested(), nested(), st.integers(-3, 3), POINTS)
def test_sums_and_multiples(a: Index, b: Index, factor: int, point: tuple[int, ...]) -> None:
    assert value(a + b, point) == value(a, point) + value(b, point)
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)
    assert value(a.scaled(factor), point) == factor * value(a, point)
    assert (a + a.scaled(-1)) == Index()


@given(nested(), st.integers(1, 7), POINTS)
def test_quotients_and_remainders(index: Index, divisor: int, point: tuple[int, ...]) -> None:
    assert value(index.floordiv(divisor), point) == value(index, point) // divisor
    assert value(index.floormod(divisor), point) == value(index, point) % divisor


def test_simplifications() -> None:
    x, y = axis_index(0), axis_index(1)
    assert x.floordiv(1) == x
    assert x.floormod(1) == Index()
    assert (x.scaled(6) + Index((), 12)).floordiv(3) == x.scaled(2) + Index((), 4)
    assert (x.scaled(6) + Index((), 13)).floormod(3) == Index((), 1)
    assert (x.scaled(6) + y).floormod(3) == y.floormod(3)
    assert (x.scaled(6) + y).floordiv(3) == Index(((FloorDiv(x.scaled(6) + y, 3), 1),))
