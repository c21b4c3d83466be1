"""The compiled code and Python: one list of fields, one encoding of graphs and leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extract import sampling
from tests.extract.records import record_of
from tvm_cdmpp.ast.leaf import LOOP_KINDS, OP_CLASSES, SCOPES, Access, Leaf, Loop
from tvm_cdmpp.ast.schema import COLUMN, FIELDS, NUM_FIELDS
from tvm_cdmpp.devices.hardware import Hardware
from tvm_cdmpp.errors import MissingDependencyError, RecordError
from tvm_cdmpp.extract import native
from tvm_cdmpp.extract.dag import analyse
from tvm_cdmpp.extract.encode import encode_graph
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.index import Index, Opaque, axis_index
from tvm_cdmpp.extract.stage import LayoutRewrite, Read, ReadLayout, StageSpec, TaskGraph


def test_compiled_fields_are_those_of_the_schema() -> None:
    documented = [(field.name, field.scale == "log2") for field in FIELDS]
    assert native.compiled_fields() == documented


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FIELDS", FIELDS[:-1])
    native._library.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"another version.*Install tvm_cdmpp again"):
        native.compiled_fields()
    native._library.cache_clear()


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "EXTENSION_SUFFIXES", [".none"])
    native._library.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"is missing.*needs a C\+\+ compiler"):
        native.compiled_fields()
    native._library.cache_clear()


def test_sources_are_where_the_build_looks() -> None:
    folder = Path(native.__file__).parent
    assert (folder / "native.cpp").is_file()
    assert len(list(folder.glob("*.h"))) > 5


@st.composite
def programs(draw: st.DrawFn) -> list[Leaf]:
    """Leaves that no schedule need have, but that hold together."""
    sizes = st.integers(1, 100)

    def access(extents: list[int]) -> Access:
        shape = tuple(draw(st.lists(sizes, max_size=3)))
        levels = len(extents)
        cover = tuple(
            (*sorted((draw(st.integers(1, dim)) for _ in range(levels)), reverse=True), 1)
            for dim in shape
        )
        steps = tuple(draw(st.integers(0, 5000)) for _ in extents)
        scope = draw(st.sampled_from(SCOPES))
        share = tuple((draw(st.integers(1, dim)), draw(st.integers(1, dim))) for dim in shape)
        return Access(
            draw(st.sampled_from([1, 2, 4, 8])), scope, draw(st.booleans()), shape, cover, steps,
            share,
        )  # fmt: skip

    def leaf(number: int) -> Leaf:
        extents = draw(st.lists(st.integers(2, 64), max_size=4))
        loops = [Loop(e, draw(st.sampled_from(LOOP_KINDS)), draw(st.booleans())) for e in extents]
        accesses = tuple(access(extents) for _ in range(draw(st.integers(1, 7))))
        ops = tuple(draw(st.integers(0, 3)) for _ in OP_CLASSES)
        limit = draw(st.sampled_from([0, 16, 512]))
        return Leaf(
            "", number, number, draw(st.booleans()), 2 * number + 1, limit,
            draw(st.integers(0, 8)), ops, tuple(loops), accesses,
        )  # fmt: skip

    return [leaf(number) for number in range(draw(st.integers(1, 4)))]


MACHINES = st.builds(
    Hardware, st.integers(-1, 64) | st.just(2**63 - 1), st.integers(-1, 64), st.integers(-1, 128),
    *[st.integers(-1, 2000)] * 5,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(programs(), MACHINES)
def test_any_leaves_on_any_machine_have_finite_vectors(
    leaves: list[Leaf], hardware: Hardware
) -> None:
    vectors = native.describe(leaves, hardware)
    assert vectors.shape == (len(leaves), NUM_FIELDS)
    assert np.isfinite(vectors).all()
    assert (vectors >= 0).all()


@settings(max_examples=40, deadline=None)
@given(programs())
def test_the_order_of_reads_does_not_matter(leaves: list[Leaf]) -> None:
    turned = [
        replace(leaf, accesses=(leaf.accesses[0], *reversed(leaf.accesses[1:]))) for leaf in leaves
    ]
    np.testing.assert_allclose(
        native.describe(turned, Hardware()), native.describe(leaves, Hardware()), rtol=1e-5
    )


def test_what_has_no_leaves_has_no_vectors() -> None:
    assert native.describe([], Hardware()).shape == (0, NUM_FIELDS)


def leaves_of(graph: TaskGraph, layout: LayoutRewrite = LayoutRewrite.AS_GIVEN) -> list[Leaf]:
    (leaves,) = StepExtractor(graph, layout=layout).leaves(
        record_of([["PR", 0, 0, "debug_skip_region"]])
    )
    assert not isinstance(leaves, RecordError)
    return leaves


OPS = tuple(range(1, len(OP_CLASSES) + 1))
COMBINE = tuple(100 * n for n in range(len(OP_CLASSES)))


def small_graph() -> TaskGraph:
    """All that the encoding of a stage holds, each number told from every other."""
    gathered = Index(((Opaque("a table", axis_index(0)), 1),))
    index = axis_index(0).scaled(3) + axis_index(1).floordiv(2) + Index((), 5)
    return TaskGraph(
        (
            StageSpec("A", (90, 17), 2, 2, (90, 17), is_placeholder=True),
            StageSpec("T", (23,), 8, 1, (23,), is_placeholder=True),
            StageSpec(
                "B", (7, 4), 4, 2, (7, 4, 9),
                (
                    Read(0, (index, axis_index(2).floormod(4))),
                    Read(1, (gathered,), layout=ReadLayout.FREE),
                ),
                OPS, COMBINE, is_output=True, float_bytes=4, int_bytes=8,
            ),
        )
    )  # fmt: skip


def test_a_graph_arrives_as_it_was_sent() -> None:
    init, update = leaves_of(small_graph())
    assert (init.name, update.name) == ("B", "B")
    assert [(loop.extent, loop.is_reduce) for loop in update.loops] == [
        (7, False), (4, False), (9, True),
    ]  # fmt: skip
    assert update.ops == tuple(a + b for a, b in zip(OPS, COMBINE, strict=True))
    assert update.compute_bytes == 4
    store, a, t = update.accesses
    assert (store.element_bytes, store.shape, store.steps) == (4, (7, 4), (4, 1, 0))
    assert (a.element_bytes, a.shape) == (2, (90, 17))
    assert a.cover == ((3 * 6 + 2, 2, 1, 1), (4, 4, 4, 1))
    assert a.steps == (3 * 17, 0, 1)
    # What is looked up may be anywhere, and moves nobody knows how far.
    assert (t.element_bytes, t.cover, t.steps) == (8, ((23, 1, 1, 1),), (0, 0, 0))


def test_integers_count_where_there_are_no_floats() -> None:
    graph = small_graph()
    stages = (*graph.stages[:2], replace(graph.stages[2], float_bytes=0))
    assert leaves_of(TaskGraph(stages))[1].compute_bytes == 8


@pytest.mark.parametrize("builder", sampling.BUILDERS, ids=lambda builder: builder.__name__)
def test_graphs_are_encoded_as_integers(builder: Callable[[], list[Any]]) -> None:
    graph = analyse(sampling.make_task(builder).compute_dag)
    encoded = encode_graph(graph)
    assert encoded[0] == len(graph.stages)
    assert all(isinstance(number, int) for number in encoded)
    assert np.asarray(encoded, dtype=np.int64).tolist() == encoded
    names = {leaf.name for leaf in leaves_of(graph)}
    assert names == {stage.name for stage in graph.stages if not stage.is_placeholder}


def test_encodings_that_end_too_early_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_graph(small_graph())
    for length in range(len(encoded)):
        monkeypatch.setattr(native, "encode_graph", lambda _, n=length: encoded[:n])
        with pytest.raises(AssertionError, match="does not fit the compiled code"):
            StepExtractor(small_graph())


def test_hardware_reaches_the_vectors() -> None:
    graph = small_graph()
    narrow, _ = StepExtractor(graph, Hardware(vector_bytes=4, line_bytes=4)).extract(record_of([]))
    wide, _ = StepExtractor(graph, Hardware(vector_bytes=64)).extract(record_of([]))
    column = COLUMN["write_line_bytes"]
    np.testing.assert_allclose(np.exp2(narrow.vectors[1, column]) - 1, 7 * 4 * 4, rtol=1e-5)
    np.testing.assert_allclose(np.exp2(wide.vectors[1, column]) - 1, 2 * 64, rtol=1e-5)
