"""Which records are of the same program, and in which order programs come."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_cdmpp.data.merge import Source, place
from tvm_cdmpp.data.schema import RECORDS
from tvm_cdmpp.data.spool import TaskKey

Program = tuple[int, str]
Measured = tuple[int, str, float, int]
"""A program, its cost (0 if it failed), and when it was measured."""
TASKS = [TaskKey(f"w{number}", "device", "llvm", (), 0) for number in range(4)]


def _write(path: Path, made: list[Measured]) -> Path:
    columns = [
        [task for task, *_ in made],
        [steps for _, steps, *_ in made],
        [[[cost_s] if cost_s else []] for *_, cost_s, _ in made],
        [[0 if cost_s else 4] for *_, cost_s, _ in made],
        [[time] for *_, time in made],
        [[0]] * len(made),
        [[False]] * len(made),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, RECORDS, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=RECORDS), path)
    return path


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.permutations(range(4)),  # each source numbers the tasks in its own way
            st.lists(
                st.lists(
                    st.tuples(
                        st.integers(0, 3),
                        st.sampled_from(["", "a", "a\0", "b", "c"]),
                        st.sampled_from([0.0, 1e-3, 2e-3]),
                        st.integers(1, 2),
                    )
                ),
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_programs_come_task_by_task_in_the_order_of_their_first_records(
    files: list[tuple[list[int], list[list[Measured]]]],
) -> None:
    with tempfile.TemporaryDirectory() as text:
        sources = []
        for number, (order, segments) in enumerate(files):
            paths = [
                _write(Path(text) / f"{number}-{segment}", made)
                for segment, made in enumerate(segments)
            ]
            sources.append(Source(paths=paths, tasks=[TASKS[n] for n in order], inputs=[number]))
        placement = place(sources)
    lines: list[list[tuple[Any, ...]]] = [
        [((TASKS[order[task]], steps), *rest) for made in segments for task, steps, *rest in made]
        for order, segments in files
    ]
    read: list[list[Any]] = [[program for program, *_ in source] for source in lines]
    distinct = list(dict.fromkeys(program for programs in read for program in programs))
    rank = {task: number for number, task in enumerate(placement.tasks)}
    ordered = sorted(distinct, key=lambda program: rank[program[0]])
    rows = {program: row for row, program in enumerate(ordered)}
    assert [r.tolist() for r in placement.rows] == [[rows[p] for p in source] for source in read]
    left = set(distinct)
    for programs, is_first in zip(read, placement.is_first, strict=True):
        for program, first in zip(programs, is_first.tolist(), strict=True):
            assert first == (program in left)
            left.discard(program)
    assert placement.num_rows.tolist() == [
        sum(task == program[0] for program in distinct) for task in placement.tasks
    ]
    seen: dict[tuple[object, ...], int] = {}
    shared = set()
    for number, (source, is_copy) in enumerate(zip(lines, placement.is_copy, strict=True)):
        for line, copy in zip(source, is_copy.tolist(), strict=True):
            assert copy == (tuple(line) in seen)
            last = seen.get(tuple(line), number)
            if line[1] and last != number:
                shared.add((last, number))
            seen[tuple(line)] = number
    assert placement.shared == shared
