"""Leaves as the whole numbers in which they go to the compiled code and come back."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_cdmpp.ast import LOOP_KINDS, OP_CLASSES, SCOPES, Access, Leaf, Loop


def pack(leaves: Sequence[Leaf]) -> list[int]:
    """Return the leaves of a program as the compiled code reads them."""
    packed = [len(leaves)]
    for leaf in leaves:
        packed += [leaf.buffer, leaf.nest, -1, leaf.is_init, leaf.position, leaf.unroll_limit]
        packed += [leaf.compute_bytes, *leaf.ops, len(leaf.loops)]
        for loop in leaf.loops:
            packed += [loop.extent, LOOP_KINDS.index(loop.kind), loop.is_reduce]
        packed.append(len(leaf.accesses))
        for access in leaf.accesses:
            packed += [access.element_bytes, SCOPES.index(access.scope), access.is_inside]
            packed += [len(access.shape), *access.shape]
            packed += [reach for row in access.cover for reach in row]
            packed += access.steps
            packed += [reach for row in access.share for reach in row]
    return packed


def unpack(packed: Sequence[int], names: Sequence[str]) -> list[Leaf]:
    """Return the leaves that the compiled code wrote.

    Parameters
    ----------
    packed
        What it wrote.
    names
        Names of the DAG's operations.
    """
    numbers = iter(packed)

    def take(count: int) -> tuple[int, ...]:
        return tuple(next(numbers) for _ in range(count))

    def take_access(num_loops: int) -> Access:
        element_bytes, scope, is_inside, dims = take(4)
        shape = take(dims)
        cover = tuple(take(num_loops + 1) for _ in range(dims))
        steps = take(num_loops)
        share = tuple((next(numbers), next(numbers)) for _ in range(dims))
        return Access(element_bytes, SCOPES[scope], bool(is_inside), shape, cover, steps, share)

    def take_leaf() -> Leaf:
        buffer, nest, origin, is_init, position, unroll_limit, compute_bytes = take(7)
        ops = take(len(OP_CLASSES))
        loops = tuple(
            Loop(extent, LOOP_KINDS[kind], bool(is_reduce))
            for extent, kind, is_reduce in (take(3) for _ in range(next(numbers)))
        )
        accesses = tuple(take_access(len(loops)) for _ in range(next(numbers)))
        return Leaf(
            names[origin], buffer, nest, bool(is_init), position, unroll_limit, compute_bytes,
            ops, loops, accesses,
        )  # fmt: skip

    return [take_leaf() for _ in range(next(numbers))]
