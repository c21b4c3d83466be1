"""Spans, steps and rewriting of index expressions, against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.extract.index import Axis, FloorDiv, FloorMod, Index, Opaque, axis_index

NUM_AXES = 3
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


@given(affine(), EXTENTS)
def test_affine_spans_are_exact(index: Index, extents: tuple[int, ...]) -> None:
    assert index.span(lambda axis: float(extents[axis])) == interval(index, extents)


@given(nested(least=0, constants=False), EXTENTS)
def test_spans_from_the_origin_are_upper_bounds(index: Index, extents: tuple[int, ...]) -> None:
    assert index.span(lambda axis: float(extents[axis])) >= interval(index, extents)


@given(st.integers(1, 40), st.integers(1, 9))
def test_spans_of_one_quotient_and_remainder_are_exact(extent: int, divisor: int) -> None:
    for index in (axis_index(0).floordiv(divisor), axis_index(0).floormod(divisor)):
        assert index.span(lambda _: float(extent)) == len(
            {value(index, [x]) for x in range(extent)}
        )


def test_spans_of_many_candidates_at_once() -> None:
    index = axis_index(0).scaled(2) + axis_index(1).floordiv(4) + Index((), 7)
    spans = {0: np.array([1.0, 3.0, 5.0]), 1: np.array([8.0, 1.0, 9.0])}
    np.testing.assert_array_equal(index.span(spans.__getitem__), [2, 5, 11])


def test_opaque_reaches_everything_and_does_not_move() -> None:
    opaque = Index(((Opaque("gather"), 1),)) + axis_index(0)
    for index in (opaque, opaque.floordiv(3), opaque.floormod(3).scaled(2) + axis_index(1)):
        assert index.opaque
    assert opaque.span(lambda _: 4.0) == np.inf
    assert opaque.step(lambda _: 4.0) == 4.0
    assert not axis_index(0).floordiv(3).opaque


@given(nested(), EXTENTS)
def test_step_is_the_distance_from_the_origin(index: Index, steps: tuple[int, ...]) -> None:
    moved = value(index, steps) - value(index, (0,) * NUM_AXES)
    assert index.step(lambda axis: float(steps[axis])) == moved


@given(nested(), st.tuples(*[nested(depth=1)] * NUM_AXES), POINTS)
def test_substitution_composes(index: Index, axes: tuple[Index, ...], point: list[int]) -> None:
    inner = [value(axis, point) for axis in axes]
    assert value(index.substitute(axes), point) == value(index, inner)


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
    # A split undone: (x * 4 + y) with x = z // 4 and y = z % 4 keeps its value.
    back = (x.scaled(4) + y).substitute([axis_index(2).floordiv(4), axis_index(2).floormod(4)])
    assert [value(back, [0, 0, z]) for z in range(9)] == list(range(9))
