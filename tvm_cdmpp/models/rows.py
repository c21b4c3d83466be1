"""Measured programs to learn from: what each is, how long it took, in which task, and where.

Latencies, tasks and machines are arrays in memory; the compact ASTs come from whatever can give
some of them at a time, such as the memory-mapped features of a record store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch, concatenate
from tvm_cdmpp.devices import DeviceSpec, Hardware
from tvm_cdmpp.errors import RecordError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Machine:
    """Where programs were measured: the device, and what TVM was told of it."""

    device: DeviceSpec
    hardware: Hardware = field(default_factory=Hardware)


class ASTSource(Protocol):
    """Compact ASTs that can be taken some at a time, such as `CompactASTBatch` itself."""

    def __len__(self) -> int:
        """Return the number of programs."""

    @property
    def leaf_counts(self) -> Ints:
        """Leaves per program."""

    def take(self, programs: Ints) -> CompactASTBatch:
        """Return the given programs, in the given order."""


@dataclass(frozen=True)
class TrainingRows:
    """Measured programs.

    Attributes
    ----------
    asts
        Compact ASTs of n programs, each with at least one leaf.
    latencies_s
        Measured seconds, infinite where the program failed; (n,).
    tasks
        Number of the task of each program; (n,).
    machines
        The machines that programs were measured on.
    machine_of
        Place in `machines` of each program; (n,).

    Raises
    ------
    RecordError
        The arrays do not fit each other, or a latency is neither positive nor infinite.
    """

    asts: ASTSource
    latencies_s: npt.NDArray[np.float64]
    tasks: Ints
    machines: tuple[Machine, ...]
    machine_of: Ints

    def __post_init__(self) -> None:
        """Reject rows that would train something else than what was measured."""
        sizes = {len(self.asts), len(self.latencies_s), len(self.tasks), len(self.machine_of)}
        if len(sizes) != 1:
            raise RecordError(
                "Training rows need as many latencies, tasks and machines as programs; got "
                f"{len(self.asts)} programs, {len(self.latencies_s)} latencies, "
                f"{len(self.tasks)} tasks and {len(self.machine_of)} machines."
            )
        wrong = np.flatnonzero(~(self.latencies_s > 0))
        if wrong.size:
            raise RecordError(
                "Training rows need latencies in seconds above 0, infinite for programs that "
                f"failed; got {self.latencies_s[wrong[0]]} in row {wrong[0]}."
            )
        if len(self) and not 0 <= self.machine_of.min() <= self.machine_of.max() < len(
            self.machines
        ):
            raise RecordError(f"machine_of must be places among {len(self.machines)} machines.")

    def __len__(self) -> int:
        """Return the number of programs."""
        return len(self.latencies_s)

    @staticmethod
    def on(
        machine: Machine | DeviceSpec, asts: ASTSource, latencies_s: npt.ArrayLike, tasks: Ints
    ) -> TrainingRows:
        """Return rows that were all measured on one machine."""
        known = machine if isinstance(machine, Machine) else Machine(machine)
        latencies = np.asarray(latencies_s, np.float64)
        return TrainingRows(asts, latencies, tasks, (known,), np.zeros(len(latencies), np.int64))

    @staticmethod
    def join(parts: Sequence[TrainingRows]) -> TrainingRows:
        """Join rows, in order; the compact ASTs are brought into memory."""
        machines = tuple(dict.fromkeys(machine for part in parts for machine in part.machines))
        places = {machine: place for place, machine in enumerate(machines)}
        none = np.zeros(0, np.int64)
        renumbered = [
            np.array([places[machine] for machine in part.machines], np.int64)[part.machine_of]
            for part in parts
            if len(part)
        ]
        return TrainingRows(
            concatenate([part.batch() for part in parts]),
            np.concatenate([np.empty(0), *(part.latencies_s for part in parts)]),
            np.concatenate([none, *(part.tasks for part in parts)]),
            machines,
            np.concatenate([none, *renumbered]),
        )

    def uncalibrated(self) -> TrainingRows:
        """Return the same rows, of devices of which nothing but the figures is known."""
        plain = [
            replace(machine, device=replace(machine.device, calibration=None, program_level=0.0))
            for machine in self.machines
        ]
        machines = tuple(dict.fromkeys(plain))
        places = np.array([machines.index(machine) for machine in plain], np.int64)
        machine_of = places[self.machine_of] if len(self) else self.machine_of
        return replace(self, machines=machines, machine_of=machine_of)

    def batch(self) -> CompactASTBatch:
        """Return all compact ASTs, in memory."""
        if isinstance(self.asts, CompactASTBatch):
            return self.asts
        return self.asts.take(np.arange(len(self)))

    def take(self, rows: Ints) -> TrainingRows:
        """Return the given rows, in the given order, with their compact ASTs in memory."""
        return TrainingRows(
            self.asts.take(rows),
            self.latencies_s[rows],
            self.tasks[rows],
            self.machines,
            self.machine_of[rows],
        )

    @property
    def groups(self) -> Ints:
        """One number per task and machine: programs that may be compared with each other; (n,)."""
        return self.tasks * len(self.machines) + self.machine_of

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """Which programs have schedules of TVM's own; (n,)."""
        of_machine = [device.own_schedule for device in self.devices]
        return np.array(of_machine, bool)[self.machine_of]

    @property
    def devices(self) -> tuple[DeviceSpec, ...]:
        """The devices of `machines`."""
        return tuple(machine.device for machine in self.machines)
