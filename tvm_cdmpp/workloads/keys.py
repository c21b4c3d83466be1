"""The keys that TVM, this version and older ones, gives to a DAG.

A key is the MD5 of the DAG's text, followed by the shapes of its tensors. The text has the names
that TVM's operators give to their stages, and some of these changed over the years.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.data import flat_key

load_tvm()
_ffi_api = importlib.import_module("tvm.auto_scheduler._ffi_api")

ComputeDAG: TypeAlias = Any

# Today's name in the text of a DAG, and that of older versions; each may have changed or not.
# Found by comparing published keys with the DAGs they belong to.
_OLD_NAMES: tuple[tuple[tuple[str, str], ...], ...] = (
    ((r"\bp\d+(?=_red\b|\b)", "placeholder"),),
    ((r"\bpad_temp\b", "PaddedInput"), (r"\bconv2d_nhwc\b", "Conv2dOutput")),
    ((r"\bT_matmul_NT\(i0, i1\)", "T_matmul_NT(i, j)"), (r"\[i0, k\]", "[i, k]"),
     (r"\[i1, k\]", "[j, k]")),
    ((r"\bT_matmul_NT\b", "T_dense"),),
    ((r"\b(adaptive_)?pool_(max|avg|sum)\b", "tensor"),),
    ((r"\bT_batch_matmul_NT\b", "compute"),),
    ((r"\bconv2d_nchw\b", "compute"),),
)  # fmt: skip


def keys_of(dag: ComputeDAG) -> frozenset[str]:
    """Return the keys, flat, that this TVM and older ones give to a DAG.

    Parameters
    ----------
    dag
        A `ComputeDAG`.
    """
    texts = {str(_ffi_api.ComputeDAGPrintDAG(dag, True))}
    for renaming in _OLD_NAMES:
        texts |= {_renamed(text, renaming) for text in texts}
    shapes = [[int(size) for size in tensor.shape] for tensor in dag.tensors]
    hashes = (hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() for text in texts)
    return frozenset(flat_key(json.dumps([name, *shapes])) for name in hashes)


def _renamed(text: str, renaming: Sequence[tuple[str, str]]) -> str:
    for pattern, old in renaming:
        text = re.sub(pattern, old, text)
    return text
