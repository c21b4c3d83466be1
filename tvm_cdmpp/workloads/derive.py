"""What a hash in a log's key means: tasks of networks, derived anew until the hash matches."""

import contextlib
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, TypeAlias

from tvm_cdmpp.bridge import load_tvm, reason_of
from tvm_cdmpp.data import Workload, flat_key, workload_id
from tvm_cdmpp.errors import UnknownDeviceError
from tvm_cdmpp.networks import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    IRModule,
    Network,
    change_layout,
    load_network,
    tasks_of,
    to_search_form,
)
from tvm_cdmpp.workloads.keys import keys_of

tvm = load_tvm()

Target: TypeAlias = Any

FORMS: dict[str, Callable[[IRModule], IRModule]] = {
    "as written": lambda mod: mod,
    "channels last": lambda mod: change_layout(mod, CHANNELS_LAST),
    "channels first": lambda mod: change_layout(mod, CHANNELS_FIRST),
    "as tuned here": to_search_form,
}
"""What people do to a network before they extract its tasks."""

_REFUSED = (tvm.TVMError, ValueError, TypeError)
"""What `tvm.target.Target` raises."""


class DerivedWorkloads:
    """The tasks of some networks by their keys, derived when a key is first asked for.

    Each network is compiled for a target in a process of its own: TVM keeps for good what it
    compiles to fold constants, about as much as the weights each time.

    Parameters
    ----------
    networks
        What `load_network` takes.
    on_form
        Told which network is at hand, in which form and for which target, and how many of all forms
        of all networks were tried for that target; up to half a minute each.
    options
        Gives the further arguments of `load_network` for each.

    Attributes
    ----------
    failures
        Why TVM could not compile a network, by network, form and target, or for a target at all.

    Raises
    ------
    NetworkError
        A network cannot be loaded.
    """

    def __init__(
        self,
        networks: Sequence[str],
        on_form: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
        options: Callable[[str], dict[str, Any]] = lambda _: {},
    ) -> None:
        self.failures: dict[str, str] = {}
        self._options = {name: options(name) for name in networks}
        self._networks = {
            name: int(tvm.ir.structural_hash(load_network(name, **given).mod))
            for name, given in self._options.items()
        }
        self._on_form = on_form
        self._found: dict[str, dict[str, Workload]] = {}
        self._rest: dict[str, Iterator[None]] = {}

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the networks."""
        return str(self._networks)

    def find(self, key: str, target: str) -> Workload | None:
        """Return the workload that a log calls `key`, or None if no network has it.

        Parameters
        ----------
        key
            The key of a record.
        target
            Its target, as text; other targets give other tasks.
        """
        try:
            usable = str(usable_target(target))
        except _REFUSED as error:
            self.failures[target] = reason_of(error)
            return None
        found = self._found.setdefault(usable, {})
        rest = self._rest.setdefault(usable, self._derive(usable))
        plain = flat_key(key)
        if plain not in found:
            for _ in rest:
                if plain in found:
                    break
        workload = found.get(plain)
        return workload and replace(workload, names=tuple(dict.fromkeys((key, *workload.names))))

    def _derive(self, target: str) -> Iterator[None]:
        """Add the tasks of one network at each step."""
        total = len(self._networks) * len(FORMS)
        for number, name in enumerate(self._networks):
            seen: set[int] = set()
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                for place, form in enumerate(FORMS):
                    done = number * len(FORMS) + place
                    self._on_form(f"{name}, {form}, for {target}", done, total)
                    try:
                        work = pool.submit(
                            _derive_named, name, self._options[name], target, form, seen
                        )
                        found, failures, seen = work.result()
                    except BrokenExecutor:
                        self.failures[f"{name}, {target}"] = "the process that compiled it died"
                        break
                    self._found[target].update(found | self._found[target])
                    self.failures |= failures
            yield


def derive_tasks(
    network: Network, target: str, form: str, seen: Set[int] = frozenset()
) -> tuple[dict[str, Workload], dict[str, str], set[int]]:
    """Extract the tasks of a network in one of the forms that people give to networks.

    Parameters
    ----------
    network
        From `load_network`.
    target
        As text that TVM accepts.
    form
        One of `FORMS`.
    seen
        Identities of the forms that were tried; nothing is done for one of these.

    Returns
    -------
    tasks
        By each key, flat, that this TVM and older ones give them.
    failures
        Why TVM could not compile it, by network, form and target.
    seen
        With this form.
    """
    found: dict[str, Workload] = {}
    label = f"{network.name}, {form}, {target}"
    tried = set(seen)
    try:
        mod = FORMS[form](network.mod)
        identity = int(tvm.ir.structural_hash(mod))
        if identity in tried:
            return {}, {}, tried
        tried.add(identity)
        tasks, weights = tasks_of(mod, network.params, tvm.target.Target(target), with_simple=True)
    except (tvm.TVMError, UnknownDeviceError) as error:
        return {}, {label: reason_of(error)}, tried
    for task, weight in zip(tasks, weights, strict=True):
        dag = str(tvm.ir.save_json(task.compute_dag.tensors))
        networks = ((network.name, float(weight)),)
        workload = Workload(workload_id(dag), (str(task.workload_key),), dag, label, networks)
        for key in keys_of(task.compute_dag):
            found.setdefault(key, workload)
    return found, {}, tried


_loaded: dict[str, Network] = {}
"""Networks, each loaded once for all of its forms; in a process that has no other."""


def _derive_named(
    name: str, options: dict[str, Any], target: str, form: str, seen: Set[int]
) -> tuple[dict[str, Workload], dict[str, str], set[int]]:
    if name not in _loaded:
        _loaded[name] = load_network(name, **options)
    return derive_tasks(_loaded[name], target, form, seen)


def usable_target(text: str) -> Target:
    """Return a log's target without the options that this TVM refuses.

    Raises
    ------
    TVMError, ValueError, TypeError
        TVM does not know its kind.
    """
    try:
        return tvm.target.Target(text)
    except _REFUSED:
        kept, *options = text.split()
    for option in options:
        with contextlib.suppress(*_REFUSED):
            tvm.target.Target(f"{kept} {option}")
            kept = f"{kept} {option}"
    return tvm.target.Target(kept)
