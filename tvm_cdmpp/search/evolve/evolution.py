"""Generations of programs of one task, and coordinate descent from the best of them.

- Children come from one parent, by moving factors within its splits, changing an unroll limit or
  going to a neighbouring skeleton; or from two of one family, with splits of each.
- A program is described and scored once, whatever it comes from.
- Parents are the best that were found so far, the better the more often.
- The descent tries all that one move can do to the best programs, until nothing gets better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.search.evolve.mutation import (
    MAX_INNERMOST,
    UNROLL_LIMITS,
    NumberMutation,
    divisors,
)
from tvm_cdmpp.search.evolve.programs import Ints, Programs
from tvm_cdmpp.search.evolve.space import ProgramSpace, fingerprints

Scores: TypeAlias = npt.NDArray[np.float64]
Score: TypeAlias = Callable[[CompactASTBatch], Scores]

_LEAST_NEW = 0.02
"""Share of a generation that must be new for another one."""


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """How much is bred, and how."""

    generations: int = 6
    children: int = 2048
    """Bred in a generation; fewer are new."""
    later: float = 0.125
    """Share of these that later rounds breed, which begin with what was found before."""
    parents: int = 512
    """The best so far, that children are bred from."""
    cross: float = 0.2
    """Share of children with two parents."""
    restructure: float = 0.15
    """Share with another skeleton."""
    looks: int = 12
    """Skeletons of a generation whose neighbours are looked for."""
    unroll: float = 0.1
    """Share with another unroll limit."""
    again: float = 0.35
    """Probability that one more factor moves."""
    pressure: float = 2.0
    """1 draws parents alike, more draws the better ones more often."""
    descents: int = 16
    """Programs to start the descent from."""
    sweeps: int = 4
    """Of the descent, at most."""

    def __post_init__(self) -> None:
        """Reject what is no share or no number of programs."""
        if min(self.generations, self.sweeps, self.descents) < 0:
            raise ConfigError("generations, sweeps and descents must not be negative.")
        if min(self.children, self.parents) < 1:
            raise ConfigError("children and parents must be at least 1.")
        if not 0.0 < self.later <= 1.0:
            raise ConfigError(f"later must be a share above 0 and at most 1; got {self.later}.")

    def of_later_rounds(self) -> EvolutionConfig:
        """Return how programs are bred in later rounds."""
        return replace(self, children=max(1, round(self.later * self.children)))


class Evolution:
    """Breeds programs of one task.

    Parameters
    ----------
    space
        The task's programs.
    score
        Returns one score per program, higher is better; the same for the same program.
    start
        Programs to begin with; those that cannot run are left out.
    config
        How.
    seed
        One seed, one sequence of programs.

    Attributes
    ----------
    programs, scores
        The best so far, best first, no two of the same steps.
    num_scored
        Distinct programs scored so far.
    """

    def __init__(
        self,
        space: ProgramSpace,
        score: Score,
        start: Programs,
        config: EvolutionConfig | None = None,
        *,
        seed: int | tuple[int, ...] = 0,
    ) -> None:
        self.config = config or EvolutionConfig()
        self.num_scored = 0
        self.programs, self.scores = start.take(slice(0)), np.zeros(0)
        self._space, self._score = space, score
        self._generator = np.random.default_rng(seed)
        self._known: set[int] = set()
        self._mutations: dict[int, NumberMutation] = {}
        self._take_in(start)

    def run(self) -> None:
        """Breed all generations, or until hardly any child is new, then descend."""
        for _ in range(self.config.generations):
            if self.breed() < _LEAST_NEW * self.config.children:
                break
        self.descend()

    def breed(self) -> int:
        """Breed and score one generation; return how many programs were new."""
        return self._take_in(self._children()) if len(self.programs) else 0

    def descend(self) -> None:
        """Go to the best neighbour from each of the best programs, as long as that helps."""
        current = self.programs.take(slice(self.config.descents))
        for _ in range(self.config.sweeps):
            tried = [moves(self._space, current.take([n])) for n in range(len(current))]
            if not tried or not self._take_in(Programs.join(tried)):
                return
            current = self.programs.take(slice(self.config.descents))

    def _take_in(self, programs: Programs) -> int:
        """Score the programs that are new, and keep the best of all."""
        fresh = programs.take(_new(programs.keys(), self._known))
        if not len(fresh):
            return 0
        batch, usable = self._space.describe(fresh)
        fresh = fresh.take(usable)
        if not len(fresh):
            return 0
        new = _new(fingerprints(batch), self._known)
        if len(new) < len(fresh):
            fresh, batch = fresh.take(new), batch.take(new)
        if len(fresh):
            scores = np.concatenate([self.scores, self._score(batch)])
            every = Programs.join([self.programs, fresh])
            best = np.argsort(-scores, kind="stable")[: self.config.parents]
            self.programs, self.scores = every.take(best), scores[best]
            self.num_scored += len(fresh)
        return len(fresh)

    def _children(self) -> Programs:
        config, generator = self.config, self._generator
        parents = self._draw(config.children)
        skeletons = self.programs.skeletons[parents]
        numbers = self.programs.numbers[parents]
        kind = generator.random(len(parents))
        crossed = kind < config.cross
        restructured = (kind >= config.cross) & (kind < config.cross + config.restructure)
        skeletons[restructured] = self._restructured(skeletons[restructured])
        families = self._space.skeletons.families_of(skeletons)
        for family in np.unique(families).tolist():
            members = np.flatnonzero(families == family)
            mutation = self._mutation(family)
            self._cross(mutation, members[crossed[members]], family, skeletons, numbers)
            unrolled = members[kind[members] > 1.0 - config.unroll]
            numbers[unrolled] = _changed(mutation.change_unrolling, numbers[unrolled])
            moved = members[
                ~(crossed | restructured)[members] & (kind[members] <= 1 - config.unroll)
            ]
            numbers[moved] = _changed(mutation.move_factors, numbers[moved])
            again = members[generator.random(len(members)) < config.again]
            while again.size:
                numbers[again] = _changed(mutation.move_factors, numbers[again])
                again = again[generator.random(len(again)) < config.again]
        return Programs(skeletons, numbers)

    def _draw(self, count: int) -> Ints:
        chance = np.power(self._generator.random(count), self.config.pressure)
        drawn: Ints = (chance * len(self.programs)).astype(np.int64)
        return drawn

    def _restructured(self, skeletons: Ints) -> Ints:
        """Return a neighbour of each skeleton, or another one that fits the same numbers."""
        families_of = self._space.skeletons.families_of
        found: Ints = skeletons.copy()
        of_parents = self.programs.skeletons
        families, of_children = families_of(of_parents), families_of(skeletons)
        members = {f: of_parents[families == f].tolist() for f in np.unique(of_children).tolist()}
        looks = self.config.looks
        for n, (skeleton, family) in enumerate(
            zip(skeletons.tolist(), of_children.tolist(), strict=True)
        ):
            choices = self._space.neighbours(skeleton, look=False)
            if not choices and looks > 0:
                choices, looks = self._space.neighbours(skeleton), looks - 1
            if not choices or self._generator.random() < 0.5:
                choices = members[family]
            found[n] = choices[int(self._generator.random() * len(choices))]
        return found

    def _cross(
        self, mutation: NumberMutation, children: Ints, family: int, skeletons: Ints, numbers: Ints
    ) -> None:
        """Mix children with other parents of their family, in place."""
        families = self._space.skeletons.families_of(self.programs.skeletons)
        mates = np.flatnonzero(families == family)
        if not mates.size or not children.size:
            return
        chance = self._generator.random(len(children)) ** self.config.pressure
        mate = mates[(chance * len(mates)).astype(np.int64)]
        mixed = numbers[children]
        mutation.cross(mixed, self.programs.numbers[mate])
        numbers[children] = mixed
        swapped = self._generator.random(len(children)) < 0.5
        skeletons[children[swapped]] = self.programs.skeletons[mate[swapped]]

    def _mutation(self, family: int) -> NumberMutation:
        if family not in self._mutations:
            self._mutations[family] = NumberMutation(
                self._space.skeletons.families[family],
                UNROLL_LIMITS[self._space.kind],
                self._generator,
            )
        return self._mutations[family]


def moves(space: ProgramSpace, program: Programs) -> Programs:
    """Return all that one move makes of a program: of a factor, a limit or the skeleton.

    Parameters
    ----------
    space
        The task's programs.
    program
        One program.
    """
    skeleton, numbers = int(program.skeletons[0]), program.numbers[0]
    family = space.skeletons.families[space.skeletons.family[skeleton]]
    rows = []
    for split in family.splits:
        columns = slice(split.first + 1, split.first + split.parts + 1)
        for lengths in _other_lengths(int(numbers[split.first]), numbers[columns].tolist()):
            row = numbers.copy()
            row[columns] = lengths
            rows.append(row)
    for column in family.unrolls:
        for limit in UNROLL_LIMITS[space.kind]:
            row = numbers.copy()
            row[column] = limit
            rows.append(row)
    others = space.neighbours(skeleton)
    if not rows and not others:
        return program.take(slice(0))
    skeletons = np.array([skeleton] * len(rows) + others, np.int64)
    return Programs(skeletons, np.stack([*rows, *[numbers] * len(others)]))


def around(space: ProgramSpace, programs: Programs) -> Programs:
    """Return all that one move makes of programs, each once."""
    near = Programs.join([moves(space, programs.take([n])) for n in range(len(programs))])
    return near.take(_new(near.keys(), set()))


def _new(keys: npt.NDArray[np.uint64], known: set[int]) -> list[int]:
    """Return the places of keys that are not known yet, which they are from now on."""
    new = []
    for place, key in enumerate(keys.tolist()):
        if key not in known:
            known.add(key)
            new.append(place)
    return new


def _changed(change: Callable[[Ints], npt.NDArray[np.bool_]], numbers: Ints) -> Ints:
    change(numbers)
    return numbers


def _other_lengths(extent: int, lengths: list[int]) -> Iterator[list[int]]:
    """Return the lengths of a split after a factor moved from one part to another."""
    inner = int(np.prod(lengths))
    if extent <= 1 or extent % inner or lengths[-1] > MAX_INNERMOST:
        return
    parts = [extent // inner, *lengths]
    for source, length in enumerate(parts):
        for factor in divisors(length)[1:]:
            for target in range(len(parts)):
                moved = parts.copy()
                moved[source] //= factor
                moved[target] *= factor
                if target != source and moved[-1] <= MAX_INNERMOST:
                    yield moved[1:]
