"""What the names mean that `tvm-cdmpp explain` prints: groups of inputs, and fields of them."""

_GROUPS = {
    "arithmetic": "operations of each kind, and how often the statement is executed",
    "loops": "how many loops, how long, and which of them are reductions",
    "annotations": "unrolling",
    "parallelism": "parallel iterations, and how they share out among the cores",
    "vectors": "vectorized loops, and their use of registers",
    "memory": "bytes, strides and alignment of each access",
    "reuse": "how often data are used again, and how much is touched meanwhile",
    "cores": "cache lines that one core touches, and that cores share",
    "traffic": "bytes moved into caches of eight sizes, and operations per byte of them",
    "allocation": "size of the stored buffer, and how often it is written",
    "gpu": "blocks, threads, shared memory and registers of a GPU",
    "bounds": "how much of the analytic estimate each of compute, caches, memory and start-up is",
    "analytic estimate": "latency by a plain formula from operations, bytes and the device",
    "places of leaves": "where the stores stand among the loops",
    "measured programs like it": "what measured programs like it were off by",
}
_SLOTS = {
    "write": "what is stored",
    "read0": "the largest buffer that is read",
    "read1": "the second buffer that is read",
    "read2": "the third buffer that is read",
    "rest": "all other reads",
}


def meaning_of_group(name: str) -> str:
    """Return in a few words what is in a group of inputs."""
    return _GROUPS[name]


def meaning_of_field(name: str) -> str:
    """Return in a few words what a field of the computation vector is."""
    from tvm_cdmpp.ast import COLUMN, FIELDS

    # What follows tells special cases and how it is counted.
    meaning = FIELDS[COLUMN[name]].meaning.split(";")[0].split(":")[0]
    of = _SLOTS.get(name.split("_")[0])
    return f"{of}: {meaning}" if of else meaning
