"""Workloads: what a log's key means, as a compute DAG in TVM's JSON.

A file of workloads has a JSON object per line: `workload_key` as logs write it, `dag`
(`tvm.ir.save_json` of the DAG's tensors), `files` ("*", or the names of the logs in which the key
has this meaning), and, where known, `function` (TVM's name of it in a network),
`key_in_tvm_0_17`, `derived_from` and `networks` (weights by network). TenSet's task files give the
same, see `data.taskfiles`.

One name may mean several DAGs, one DAG may have several names, and TVM's own key leaves out element
types, so a workload's identity is a hash of its DAG without the names in it.
"""

import hashlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from tvm_cdmpp.data.lines import read_lines
from tvm_cdmpp.data.taskfiles import read_task_file
from tvm_cdmpp.errors import RecordError

_NAMES = frozenset({"name", "name_hint", "span", "tag"})
# The first that occurs in the names and tags of a DAG's operations, the most telling first.
_OPERATORS = (
    ("winograd", "conv2d_winograd"),
    ("conv2d_transpose", "conv2d_transpose"),
    ("depthwise", "depthwise_conv2d"),
    ("group_conv", "group_conv2d"),
    ("conv3d", "conv3d"),
    ("conv2d", "conv2d"),
    ("conv1d", "conv1d"),
    ("batch_matmul", "batch_matmul"),
    ("matmul", "matmul"),
    ("dense", "matmul"),
    ("softmax", "softmax"),
    ("pool", "pool"),
    ("comm_reduce", "reduction"),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A compute DAG and what logs call it."""

    workload_id: str
    """Names the DAG: equal for equal computations, whatever they are called."""
    names: tuple[str, ...]
    """Keys under which logs have it."""
    dag: str
    """`tvm.ir.save_json` of the DAG's tensors."""
    derived_from: str = ""
    networks: tuple[tuple[str, float | None], ...] = ()
    """Networks it occurs in, and how often, where known."""
    workload_key: str = ""
    """As TVM calls the DAG itself; empty until TVM was asked."""
    flops: float | None = None
    function: str = ""
    """TVM's name of its function in a network; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class DagFacts:
    """What TVM says about a DAG."""

    workload_key: str
    flops: float
    keys: frozenset[str]
    """The keys, flat, that this version of TVM and older ones give to it."""


class Inspector(Protocol):
    """Asks TVM; see `tvm_cdmpp.workloads.inspector`."""

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with what `rebuild` knows."""

    def describe(self, dag: str) -> DagFacts:
        """Describe a DAG; `RecordError` if TVM cannot read it."""

    def rebuild(self, key: str, target: str) -> list[Workload]:
        """Return what a record's workload key may mean: by known functions, or networks' tasks."""

    def misfits(
        self, dag: str, hardware: Sequence[int], layout: int, steps: Sequence[bytes]
    ) -> dict[int, str]:
        """Replay steps on a DAG, and tell which do not fit, and why."""


@dataclass
class WorkloadBook:
    """All workloads that are known by their DAG.

    Attributes
    ----------
    fingerprint
        Changes with the content.
    """

    fingerprint: str = ""
    _general: dict[str, Workload] = field(default_factory=dict)
    _specific: dict[tuple[str, str], Workload] = field(default_factory=dict)
    _checked: dict[Workload, Workload] = field(default_factory=dict)

    @staticmethod
    def read(paths: Sequence[Path]) -> "WorkloadBook":
        """Read files of workloads.

        Raises
        ------
        RecordError
            A line is no workload.
        """
        book = WorkloadBook()
        digest = hashlib.sha256()
        for path in paths:
            entries = read_task_file(path) if path.suffix == ".pkl" else _entries(path)
            for number, entry in enumerate(entries, start=1):
                try:
                    book._add(entry)
                except (KeyError, TypeError, ValueError) as error:
                    raise RecordError(
                        f"{path}:{number} is no workload: expected an object with workload_key, "
                        f"dag and files ({type(error).__name__}: {error}). Repair or remove it."
                    ) from error
                digest.update(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS))
        book.fingerprint = digest.hexdigest()
        return book

    def __len__(self) -> int:
        """Return the number of meanings."""
        return len({w.workload_id for w in (*self._general.values(), *self._specific.values())})

    def find(self, key: str, log_name: str) -> Workload | None:
        """Return what a key means in a log, given by its name; None if that is not known."""
        plain = flat_key(key)
        return self._specific.get((plain, log_name)) or self._general.get(plain)

    def candidates(
        self, key: str, target: str, log_name: str, inspector: Inspector
    ) -> list[Workload]:
        """Return what a record's key may mean in a log: what the book says comes first.

        A name may mean several things; of the tasks of networks, the book's is as good as any.
        """
        found = self.find(key, log_name)
        if found and is_hash(key):
            return [found]
        return [*([found] if found else []), *inspector.rebuild(key, target)]

    def checked(self, found: Workload, key: str, inspector: Inspector) -> Workload:
        """Complete a workload with what TVM says about it, once.

        Raises
        ------
        RecordError
            It is the DAG of another key.
        """
        if found not in self._checked:
            facts = inspector.describe(found.dag)
            if is_hash(key) and facts.keys.isdisjoint(map(flat_key, (key, *found.names))):
                raise RecordError(f"the DAG given for {key} is that of {facts.workload_key}")
            self._checked[found] = replace(
                found, workload_key=facts.workload_key, flops=facts.flops
            )
        return self._checked[found]

    def find_renamed(self, key: str, present: Container[str]) -> Workload | None:
        """Return what a hash means in logs that are gone, so that this log may be one of them.

        Another log that is there tells nothing: TVM's hash leaves out element types.

        Parameters
        ----------
        key
            The hash; there is no meaning of names.
        present
            Names of logs that are there.
        """
        plain = flat_key(key)
        meanings = {
            w.workload_id: w
            for (name, log), w in self._specific.items()
            if name == plain and log not in present and is_hash(key)
        }
        return next(iter(meanings.values())) if len(meanings) == 1 else None

    def _add(self, entry: dict[str, Any]) -> None:
        names = [entry["workload_key"]]
        if "key_in_tvm_0_17" in entry:
            names.append(entry["key_in_tvm_0_17"])
        workload = Workload(
            workload_id(entry["dag"]),
            tuple(names),
            entry["dag"],
            str(entry.get("derived_from", "")),
            tuple(dict(entry.get("networks", {})).items()),
            function=str(entry.get("function", "")),
        )
        for name in map(flat_key, names):
            if entry["files"] == "*":
                known = self._general.setdefault(name, workload)
                if known.workload_id == workload.workload_id:
                    networks = dict(workload.networks) | dict(known.networks)
                    self._general[name] = replace(known, networks=tuple(networks.items()))
            else:
                self._specific |= {(name, str(log)): workload for log in entry["files"]}


def workload_id(dag: str) -> str:
    """Return the identity of a DAG: 16 hexadecimal digits that do not depend on names in it.

    Raises
    ------
    ValueError
        It is not JSON as TVM writes it.
    """
    nodes = orjson.loads(dag)["nodes"]
    for node in nodes:
        for name in _NAMES & node.get("attrs", {}).keys():
            node["attrs"][name] = ""
        if node["type_key"] == "runtime.String":
            node["repr_str"] = ""
    return hashlib.sha256(orjson.dumps(nodes, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def operator_class(dag: str) -> str:
    """Return what kind of operator a DAG is, such as `conv2d`, `matmul` or `elementwise`."""
    nodes = orjson.loads(dag)["nodes"]
    attrs = [node["attrs"] for node in nodes if node["type_key"] == "ComputeOp"]
    names = " ".join(f"{a.get('name', '')} {a.get('tag', '')}" for a in attrs).lower()
    for word, operator in _OPERATORS:
        if word in names:
            return operator
    reduces = any(node["type_key"] == "tir.Reduce" for node in nodes)
    return "reduction" if reduces else "elementwise"


def is_hash(key: str) -> bool:
    """Tell whether a workload key begins with the hash of a DAG, and not with a function's name."""
    return len(key) > 36 and key.startswith('["') and key[34] == '"'


def flat_key(key: str) -> str:
    """Return a key without its brackets: old versions of TVM wrote shapes without nesting."""
    return key.replace("[", "").replace("]", "").replace(" ", "")


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    number = 0
    for number, (line, defect) in enumerate(read_lines(path, lambda _: None), start=1):
        try:
            if defect:
                raise ValueError(defect)
            if not line.strip():
                continue
            entry = orjson.loads(line)
            if not isinstance(entry, dict):
                raise TypeError("not an object")
        except (TypeError, ValueError) as error:
            raise RecordError(
                f"{path}:{number} is no workload: {error}. Remove the line; the command that wrote "
                "it adds it again when it goes on with its log."
            ) from error
        yield entry
