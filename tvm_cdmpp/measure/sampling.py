"""New programs of a task, drawn from where a search draws those that it asks a cost model about.

A search scores sketches filled in at random, then what evolution makes of them and of the best
measured programs, generation after generation, and measures the top of that. A model that is
trained on the top alone does not know what is bad. Hence three kinds, by `SampleMix`; all of them
come from TVM's own sampling and evolution. Where a kind has no new programs left, others take
their places, and the counts by kind say so.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.errors import ConfigError

tvm = load_tvm()
auto_scheduler = tvm.auto_scheduler

Kind = Literal["random", "evolved", "best"]

_ATTEMPTS = 3  # draws without a new program, each with another seed, until a task is exhausted
_PARENTS = 16  # measured programs that evolution starts from, next to the random ones


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleMix:
    """Which programs are drawn; what the two shares leave is `best`."""

    random: float = 0.4
    """Share from the initial population: sketches with random tile sizes and annotations."""
    evolved: float = 0.3
    """Share of any that evolution with the current model kept; the rest are its best."""
    population: int = 512
    """Candidates per generation; TVM has 2048, for rounds of 64 programs."""

    def __post_init__(self) -> None:
        """Reject what is no share."""
        if min(self.random, self.evolved) < 0 or self.random + self.evolved > 1:
            raise ConfigError(
                "the shares random and evolved must be at least 0 and together at most 1; got "
                f"{self.random} and {self.evolved}"
            )
        if self.population < 1:
            raise ConfigError(f"population must be at least 1, got {self.population}")


class ProgramSampler:
    """Draws programs of one task that were not drawn or noted before.

    Parameters
    ----------
    task
        The `SearchTask`.
    model
        The cost model that evolution asks.
    mix
        What to draw.
    seed
        One seed, and the same programs noted in the same order, give the same programs.
    """

    def __init__(self, task: Any, model: Any, mix: SampleMix, seed: Sequence[int]) -> None:
        self._task, self._model, self._mix, self._seed = task, model, mix, tuple(seed)
        self._known: set[str] = set()
        self._measured: list[tuple[float, Any]] = []

    def note(self, state: Any, latency_s: float) -> None:
        """Take in a measured program; infinite latency for one that failed.

        Parameters
        ----------
        state
            The program, also as a log gives it: with steps only.
        latency_s
            Its mean latency.
        """
        whole = self._infer_bound(state)
        if whole is None:
            return
        self._known.add(str(whole))
        if math.isfinite(latency_s):
            self._measured.append((latency_s, whole))
            self._measured.sort(key=lambda pair: pair[0])
            del self._measured[_PARENTS:]

    def draw(self, number: int) -> list[tuple[Kind, Any]]:
        """Draw new programs.

        Returns
        -------
        programs
            Kind and state of so many programs; fewer where the task has no more of them, and none
            when it is exhausted.
        """
        for attempt in range(_ATTEMPTS):
            if programs := self._draw(number, attempt):
                return programs
        return []

    def _draw(self, number: int, attempt: int) -> list[tuple[Kind, Any]]:
        seed = np.random.SeedSequence([*self._seed, len(self._known), attempt])
        policy = auto_scheduler.SketchPolicy(
            self._task,
            self._model,
            params={
                **auto_scheduler.SketchPolicy.DEFAULT_PARAMS,
                "evolutionary_search_population": self._mix.population,
            },
            seed=1 + int(seed.generate_state(1)[0]) % (2**31 - 2),  # TVM reads 0 as "no seed"
            verbose=0,
        )
        generator = np.random.default_rng(seed)
        initial = list(policy.sample_initial_population())
        parents = initial + [state for _, state in self._measured]
        # From the best to the worst, by the model.
        evolved = list(policy.evolutionary_search(parents, self._mix.population))
        num_random = round(self._mix.random * number)
        num_evolved = round(self._mix.evolved * number)
        pools: dict[Kind, Iterator[Any]] = {
            "best": iter(evolved),
            "evolved": iter([evolved[n] for n in generator.permutation(len(evolved))]),
            "random": iter([initial[n] for n in generator.permutation(len(initial))]),
        }
        wanted = Counter(
            best=number - num_random - num_evolved, evolved=num_evolved, random=num_random
        )
        drawn: list[tuple[Kind, Any]] = []
        for kind, pool in pools.items():
            drawn += [(kind, state) for state in self._take(pool, wanted[kind])]
        for kind, pool in pools.items():  # in place of what the others lack
            drawn += [(kind, state) for state in self._take(pool, number - len(drawn))]
        return drawn

    def _take(self, pool: Iterator[Any], number: int) -> list[Any]:
        """Take new programs from a pool until there are enough."""
        taken: list[Any] = []
        while len(taken) < number and (state := next(pool, None)) is not None:
            whole = self._infer_bound(state)
            # By its loops, as TVM does: other steps may lead to the same program.
            if whole is not None and str(whole) not in self._known:
                self._known.add(str(whole))
                taken.append(whole)
        return taken

    def _infer_bound(self, state: Any) -> Any | None:
        """Fill in all loop extents; None for a program that TVM cannot bound."""
        try:
            return self._task.compute_dag.infer_bound_from_state(state).state_object
        except tvm.TVMError:
            return None
