"""Which records are of the same program, and in which order programs come."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_cdmpp.data.merge import Source, place
from tvm_cdmpp.data.schema import RECORDS
from tvm_cdmpp.data.spool import TaskKey

Program = tuple[int, str]
TASKS = [TaskKey(f"w{number}", "device", "llvm", (), 0) for number in range(4)]


def _write(path: Path, programs: list[Program]) -> Path:
    tasks, steps = [task for task, _ in programs], [steps for _, steps in programs]
    columns = {"task": pa.array(tasks, pa.int32()), "steps": pa.array(steps, pa.string())}
    pq.write_table(pa.table(columns, RECORDS.empty_table().select(list(columns)).schema), path)
    return path


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.permutations(range(4)),  # each source numbers the tasks in its own way
            st.lists(
                st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "a\0", "b", "c"]))),
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_programs_come_task_by_task_in_the_order_of_their_first_records(
    files: list[tuple[list[int], list[list[Program]]]],
) -> None:
    with tempfile.TemporaryDirectory() as text:
        sources = []
        for number, (order, segments) in enumerate(files):
            paths = [
                _write(Path(text) / f"{number}-{place}", programs)
                for place, programs in enumerate(segments)
            ]
            sources.append(Source(paths=paths, tasks=[TASKS[n] for n in order], inputs=[number]))
        placement = place(sources)
    read = [
        [(TASKS[order[task]], steps) for programs in segments for task, steps in programs]
        for order, segments in files
    ]
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
