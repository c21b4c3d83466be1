from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tvm_cdmpp.ast.leaf import OP_CLASSES, Access, Leaf, Loop
from tvm_cdmpp.ast.schema import FIELDS, NUM_FIELDS
from tvm_cdmpp.extract.agreement import Difference, differences, vector_differences


def access(**changes: Any) -> Access:
    plain = Access(4, "global", False, (4, 8), ((4, 1, 1), (8, 8, 1)), (8, 1), ((4, 4), (8, 8)))
    return replace(plain, **changes)


READS = (access(), access(steps=(0, 1)), access(steps=(0, 1)))


def leaf(**changes: Any) -> Leaf:
    plain = Leaf(
        name="C", buffer=0, nest=0, is_init=False, position=4, unroll_limit=16, compute_bytes=4,
        ops=(0,) * len(OP_CLASSES), loops=(Loop(4, "parallel", False), Loop(8, "serial", True)),
        accesses=(access(), *READS),
    )  # fmt: skip
    return replace(plain, **changes)


def causes(fast: list[Leaf], exact: list[Leaf]) -> list[str]:
    return [difference.cause for difference in differences(fast, exact)]


def test_equal_leaves_do_not_differ_whatever_they_are_called() -> None:
    assert differences([leaf(), leaf()], [leaf(), leaf(name="C.local")]) == []


def test_reads_have_no_order() -> None:
    assert differences([leaf()], [leaf(accesses=(access(), *reversed(READS)))]) == []


def test_reads_are_counted() -> None:
    twice_the_other = (access(), access(), access(), access(steps=(0, 1)))
    assert causes([leaf()], [leaf(accesses=twice_the_other)]) == ["reads.steps"]
    assert causes([leaf()], [leaf(accesses=(access(), *READS[:2]))]) == ["reads.count"]


def test_the_store_is_not_a_read() -> None:
    fast = leaf(accesses=(access(), access(scope="local")))
    exact = leaf(accesses=(access(scope="local"), access()))
    assert causes([fast], [exact]) == ["store.scope", "reads.scope"]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"position": 5}, "position"),
        ({"nest": 1}, "nest"),
        ({"buffer": 1}, "buffer"),
        ({"is_init": True}, "is_init"),
        ({"unroll_limit": 0}, "unroll_limit"),
        ({"compute_bytes": 2}, "compute_bytes"),
        ({"ops": (0, 1, *(0,) * (len(OP_CLASSES) - 2))}, "ops.float_mul"),
        ({"loops": (Loop(4, "parallel", False),)}, "loops.count"),
        ({"loops": (Loop(4, "parallel", False), Loop(7, "serial", True))}, "loops.extent"),
        ({"loops": (Loop(4, "serial", False), Loop(8, "serial", True))}, "loops.kind"),
        ({"loops": (Loop(4, "parallel", True), Loop(8, "serial", True))}, "loops.is_reduce"),
        ({"accesses": (access(cover=((4, 4, 1), (8, 8, 1))), *READS)}, "store.cover"),
        ({"accesses": (access(shape=(4, 9)), *READS)}, "store.shape"),
        ({"accesses": (access(), access(element_bytes=2), *READS[1:])}, "reads.element_bytes"),
        ({"accesses": (access(), access(is_inside=True), *READS[1:])}, "reads.is_inside"),
    ],
)
def test_each_field_is_compared(changes: dict[str, Any], cause: str) -> None:
    assert causes([leaf(), leaf()], [leaf(), leaf(**changes)]) == [cause]
    assert causes([leaf(**changes), leaf()], [leaf(), leaf()]) == [cause]


def test_a_missing_leaf_is_the_only_difference() -> None:
    assert differences([leaf()], [leaf(), leaf(nest=1)]) == [Difference("leaf count", -1, 1, 2)]


def test_a_difference_says_where_and_what() -> None:
    (found,) = differences([leaf(), leaf(nest=2)], [leaf(), leaf(nest=1)])
    assert str(found) == "leaf 1: nest is 2 on the fast path, 1 exactly"
    assert str(differences([], [leaf()])[0]).startswith("program: leaf count is 0")


def test_vectors_are_compared_within_a_tolerance() -> None:
    exact = np.full((2, NUM_FIELDS), 1000.0, np.float32)
    fast = exact.copy()
    fast[0, 3] += 1e-4
    assert vector_differences(fast, exact) == []
    fast[1, 5] += 1.0
    assert vector_differences(fast, exact) == [
        Difference(f"vector.{FIELDS[5].name}", 1, 1001.0, 1000.0)
    ]
    assert [d.cause for d in vector_differences(fast[:1], exact)] == ["vector shape"]


def test_a_value_that_is_no_number_differs() -> None:
    exact = np.zeros((1, NUM_FIELDS), np.float32)
    fast = exact.copy()
    fast[0, 0] = np.nan
    assert len(vector_differences(fast, exact)) == 1
