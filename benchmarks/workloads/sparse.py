"""Products with sparse matrices, whose loops only the data bounds, and how Ansor is to tile them.

Ansor's own rules refuse such loops. The ones here are like those of TVM's guide to tuning sparse
networks:
https://tvm.apache.org/docs/v0.17.0/how_to/tune_with_autoscheduler/tune_sparse_x86.html
"""

from typing import Any

from tvm_cdmpp.bridge import load_tvm

tvm = load_tvm()
te, topi = tvm.te, tvm.topi
Rule = tvm.auto_scheduler.PreloadCustomSketchRule

Tensors = list[Any]


def sparse_dense_csr(n: int = 16, m: int = 32, k: int = 48, nonzeros: int = 96) -> Tensors:
    """Dense layer with compressed sparse rows: loop extents and reads depend on data."""
    data = te.placeholder((n, k), name="data")
    values = te.placeholder((nonzeros,), name="values")
    columns = te.placeholder((nonzeros,), "int32", "columns")
    rows = te.placeholder((m + 1,), "int32", "rows")
    return [data, values, columns, rows, topi.nn.sparse_dense(data, values, columns, rows)]


def sparse_dense_bsr(n: int = 16, m: int = 32, k: int = 48, blocks: int = 12) -> Tensors:
    """Dense layer with sparse blocks of 4 x 4."""
    data = te.placeholder((n, k), name="data")
    values = te.placeholder((blocks, 4, 4), name="values")
    columns = te.placeholder((blocks,), "int32", "columns")
    rows = te.placeholder((m // 4 + 1,), "int32", "rows")
    return [data, values, columns, rows, topi.nn.sparse_dense(data, values, columns, rows)]


def ragged_sum(n: int = 12, longest: int = 20) -> Tensors:
    """Sum over the first values of each row, as many as another array says."""
    data, lengths = te.placeholder((n, longest), name="data"), te.placeholder((n,), "int32", "rows")

    def total(i: Any) -> Any:
        k = te.reduce_axis((0, lengths[i]), name="k")
        return te.sum(data[i, k], axis=k)

    return [data, lengths, te.compute((n,), total, name="sums", tag="ragged_sum")]


def sketch_rules() -> list[Any]:
    """Return the rules, for `init_search_callbacks` of a sketch policy."""
    return [Rule(_is_sparse, _tile, "sparse")]


def _is_sparse(policy: Any, state: Any, stage: int) -> int:
    opened = tvm.auto_scheduler.loop_state.State(state, policy.search_task.compute_dag)
    tag = opened.stages[stage].op.tag
    known = tag.startswith("sparse_dense_sp_rhs") or tag == "ragged_sum"
    return int(Rule.APPLY_AND_SKIP_REST if known else Rule.PASS)


def _tile(policy: Any, state: Any, stage: int) -> list[Any]:
    opened = tvm.auto_scheduler.loop_state.State(state, policy.search_task.compute_dag)
    op = opened.stages[stage].op
    if op.tag == "sparse_dense_sp_rhs_bsrmm_block":
        return [[opened.state_object, stage - 1]]
    if op.tag == "ragged_sum":
        i, _ = opened[op].iters
        opened.split(op, i, [None])
        return [[opened.state_object, stage - 1]]
    if op.tag == "sparse_dense_sp_rhs_csrmm":
        i, row, element = opened[op].iters
        i0, i1 = opened.split(op, i, [None])
        row0, row1 = opened.split(op, row, [None])
        opened.reorder(op, [i0, row0, row1, element, i1])
        return [[opened.state_object, stage - 1]]
    block = opened.stages[stage - 1].op
    i, row, j, element, c = opened[block].iters
    m, n = opened[op].iters
    i0, i1, i2 = opened.split(block, i, [None, None])
    m0, m1 = opened.follow_split(op, m, len(opened.transform_steps) - 1, 1)
    row0, row1 = opened.split(block, row, [None])
    n0, n1 = opened.follow_split(op, n, len(opened.transform_steps) - 1, 1)
    opened.reorder(block, [i0, row0, i1, row1, element, i2, j, c])
    opened.reorder(op, [m0, n0, m1, n1])
    opened.compute_at(block, op, n0)
    return [[opened.state_object, stage - 2]]
