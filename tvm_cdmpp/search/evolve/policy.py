"""The search of one task by evolution without TVM, with the interface of TVM's search policies.

TVM gives the sketches and a few programs sampled from them, applies the steps of the programs that
were chosen, and measures them. All that is between is in the other modules here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from tvm_cdmpp.bridge import load_tvm, possible_latency_s
from tvm_cdmpp.models import Content
from tvm_cdmpp.search.evolve.answers import Answers, Asked
from tvm_cdmpp.search.evolve.building import log_build_cost
from tvm_cdmpp.search.evolve.choice import (
    BRED,
    RUNGS,
    SAMPLED,
    ChoiceConfig,
    choose,
    expected_gain,
    rung_shares,
    spread_within,
)
from tvm_cdmpp.search.evolve.evolution import Evolution, EvolutionConfig, around
from tvm_cdmpp.search.evolve.programs import Programs
from tvm_cdmpp.search.evolve.space import ProgramSpace, fingerprints

auto_scheduler = load_tvm().auto_scheduler
_SearchPolicy: Any = auto_scheduler.search_policy.SearchPolicy

# Sampling a program takes TVM a millisecond for a CPU, and 25 for a GPU, where sketches have but
# one skeleton; so it samples few there, and once.
_SAMPLES = {"cpu": (128, 96), "gpu": (32, 16)}
_SAMPLES_LATER = (64, 48)
_POOL = 8
"""Best programs to choose from, for each that is measured."""
_LEAST_POOL = 128
_SPREAD = 0.15
"""What a prediction is off by within a task, in ln latency, before anything was measured."""

_TRUST = 0.1
"""Gains that count as expected and come true before the first were."""


_FIGURES = (
    "_gain",
    "_is_done",
    "_ahead",
    "_round",
    "_favourite",
    "_low_gains",
    "_promise",
    "_promised",
    "_kept",
)
"""What a policy knows in single numbers."""


class Model(Asked, Protocol):
    """What evolution asks a cost model."""

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn from measurements."""


class Measurer(Protocol):
    """What measures programs."""

    def measure(self, policy: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return a `MeasureResult` for each `MeasureInput`."""


@dataclass(frozen=True)
class Found:
    """A program that was chosen to be measured."""

    state: Any
    program: Programs
    log_s: float
    """Predicted ln seconds."""
    rung: int = BRED
    """Where it comes from, see `choice`."""
    build_cost: float = 0.0
    """What it takes to build, as ln of any unit."""


class EvolutionPolicy(_SearchPolicy):
    """Searches one task.

    Parameters
    ----------
    task
        The `SearchTask`.
    model
        Scores programs, and learns from the measured ones.
    seed
        One seed, and the same measurements, give the same programs.
    evolution, choice
        How programs are bred and chosen.
    """

    def __init__(
        self,
        task: Any,
        model: Model,
        *,
        seed: int = 0,
        evolution: EvolutionConfig | None = None,
        choice: ChoiceConfig | None = None,
    ) -> None:
        self._gain, self._is_done = 1.0, False
        self._ahead = 0
        """Programs of the last round, until what another one would gain has been estimated."""
        self._task, self._model, self._seed = task, model, seed
        self._evolution = evolution or EvolutionConfig()
        self._choice = choice or ChoiceConfig()
        self._space = ProgramSpace(task)
        self._round = 0
        self._favourite = BRED
        """The rung that gave the best program of the last batch."""
        self._low_gains = 0
        self._promise = 0.0
        self._promised = self._kept = _TRUST
        """Sums of gains that were expected, and that came true."""
        self._residuals: list[float] = []
        self._measured: set[int] = set()
        self._seen: set[str] = set()
        """Hashes of states."""
        self._best = self._space.programs([], [])
        """The best found in the round before."""
        self._samples = self._best
        self._good: list[tuple[float, Programs]] = []
        """Measured programs, fastest first, with their latencies."""

    @property
    def gain(self) -> float:
        """Share of the task's latency that another round is expected to gain; 1 before the first.

        Estimated when somebody asks: the model learns for that, which after the last round of a
        search would be for nothing.
        """
        self._look_ahead()
        return self._gain

    @property
    def is_done(self) -> bool:
        """Whether that is too little, and has been for some rounds."""
        self._look_ahead()
        return self._is_done

    def continue_search_one_round(
        self, num_measure: int, measurer: Measurer
    ) -> tuple[list[Any], list[Any]]:
        """Find, choose and measure programs, and let the model learn.

        Returns
        -------
        inputs, results
            What was measured; nothing when the task has no new programs.
        """
        self._look_ahead()
        # What takes as long to build is built together, and what is built soon is known soon.
        found = sorted(self.find(num_measure), key=lambda each: each.build_cost)
        inputs = [auto_scheduler.MeasureInput(self._task, each.state) for each in found]
        if not inputs:
            self._is_done, self._gain = True, 0.0
            return [], []
        results = measurer.measure(self, inputs)
        before_s = self._good[0][0] if self._good else None
        self.note([each.program for each in found], results, [each.log_s for each in found])
        self._favour(found, results)
        self._model.update(inputs, results)
        if before_s is not None:
            self._promised += self._promise
            self._kept += 1.0 - self._good[0][0] / before_s
        self._ahead = num_measure
        return inputs, results

    def find(self, count: int) -> list[Found]:
        """Breed programs, and choose some that were not chosen before.

        Returns
        -------
        found
            Fewer where the task has no more.
        """
        self._sample()
        fastest = Programs.join([program for _, program in self._good])
        start = Programs.join([self._samples, self._best, fastest])
        config = self._evolution.of_later_rounds() if self._round else self._evolution
        answers = Answers(self._model, self._task)
        evolution = Evolution(
            self._space, answers.score, start, config, seed=(self._seed, self._round)
        )
        some = slice(max(_LEAST_POOL, _POOL * count))
        evolution.breed()
        one_generation = evolution.programs.take(some)
        evolution.run()
        self._best = evolution.programs
        explored = min(count, round(self._choice.explored * count))
        shares = rung_shares(count - explored, self._favourite, self._round)
        self._round += 1
        near = around(self._space, fastest)
        pools = (self._samples, one_generation, self._best.take(some), near)
        parts = [self._take(answers, pools[n], shares[n], n) for n in reversed(range(RUNGS))]
        found = [each for row in zip_longest(*parts) for each in row if each is not None]
        shuffled = self._shuffled(self._samples)
        found += self._take(answers, shuffled, explored, SAMPLED, random=True)
        for pool in (evolution.programs, near, self._samples):
            found += self._take(answers, pool, count - len(found))
        return found

    def note(
        self, programs: Sequence[Programs], results: Sequence[Any], predicted: Sequence[float]
    ) -> None:
        """Take in measured programs.

        Parameters
        ----------
        programs
            One program each.
        results
            A `MeasureResult` for each.
        predicted
            ln seconds that the model said before; not a number where it was not asked.
        """
        for program, result, log_s in zip(programs, results, predicted, strict=True):
            measured_s = possible_latency_s(result)
            if not np.isfinite(measured_s):
                continue
            if np.isfinite(log_s):
                self._residuals.append(float(np.log(measured_s) - log_s))
            self._good.append((measured_s, program))
        self._good.sort(key=lambda pair: pair[0])
        del self._good[self._evolution.descents :]

    def preload(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Take in programs of this task that were measured in another run."""
        programs = self._space.read_states([measured.state for measured in inputs])
        singles = [programs.take([place]) for place in range(len(programs))]
        self.note(singles, results, [np.nan] * len(singles))
        self._forbid(programs)

    def content(self) -> Content:
        """Return what a checkpoint holds: all that the next round depends on."""
        good_s = np.array([measured_s for measured_s, _ in self._good])
        parts = {
            "space": self._space.content(),
            "best": self._best.content(),
            "samples": self._samples.content(),
            "good": Programs.join([program for _, program in self._good]).content(),
        }
        measured = np.array(sorted(self._measured), np.uint64)
        figures = {name: getattr(self, name) for name in _FIGURES}
        own = Content(
            {**figures, "residuals": self._residuals, "seen": sorted(self._seen)},
            {"measured": measured, "good_s": good_s},
        )
        return Content.under(policy=own, **parts)

    def restore(self, content: Content) -> None:
        """Continue from what a checkpoint holds, which is of the same task.

        Raises
        ------
        KeyError, TypeError, ValueError
            Something is missing or is not what it should be.
        """
        own = content.part("policy")
        self._space.restore(content.part("space"))
        self._best = Programs.of_content(content.part("best"))
        self._samples = Programs.of_content(content.part("samples"))
        good, good_s = Programs.of_content(content.part("good")), own.arrays["good_s"].tolist()
        self._good = [(s, good.take([n])) for n, s in enumerate(good_s)]
        for name in _FIGURES:
            setattr(self, name, type(getattr(self, name))(own.settings[name]))
        self._residuals = [float(residual) for residual in own.settings["residuals"]]
        self._measured = set(own.arrays["measured"].tolist())
        self._seen = set(own.settings["seen"])

    def _sample(self) -> None:
        """Let TVM sample programs: many at first, later some that may have other skeletons."""
        if self._round and self._space.kind == "gpu":
            return
        population, least = _SAMPLES_LATER if self._round else _SAMPLES[self._space.kind]
        seed = np.random.SeedSequence([self._seed, self._round]).generate_state(1)[0]
        policy = auto_scheduler.SketchPolicy(
            self._task,
            params={
                **auto_scheduler.SketchPolicy.DEFAULT_PARAMS,
                "evolutionary_search_population": population,
                "sample_init_min_population": least,
            },
            seed=1 + int(seed) % (2**31 - 2),  # TVM reads 0 as "no seed"
            verbose=0,
        )
        self._samples = self._space.read_states(policy.sample_initial_population())

    def _shuffled(self, programs: Programs) -> Programs:
        generator = np.random.default_rng((self._seed, self._round))
        return programs.take(generator.permutation(len(programs)))

    def _take(
        self,
        answers: Answers,
        pool: Programs,
        count: int,
        rung: int = BRED,
        *,
        random: bool = False,
    ) -> list[Found]:
        """Take programs that are new from a pool, of most worth or as they come."""
        if count < 1:
            return []
        batch, usable = self._space.describe(pool)
        new = [n for n, key in enumerate(fingerprints(batch).tolist()) if key not in self._measured]
        if not new:
            return []
        pool, batch = pool.take(usable).take(new), batch.take(new)
        latency_s, runs_probability = answers.of(batch)
        log_s = np.log(latency_s)
        worth = np.log(np.maximum(runs_probability, 1e-9)) - log_s
        costs = log_build_cost(batch)
        worth -= self._choice.build_weight * costs
        if random:
            worth = -np.arange(len(pool), dtype=np.float64)
        taken: list[Found] = []
        rest = np.arange(len(pool))
        while len(taken) < count and len(rest):
            chosen = choose(
                pool.take(rest),
                worth[rest],
                count - len(taken),
                self._space.skeletons,
                self._choice.differences,
            )
            some = rest[chosen]
            for place, state in zip(some, self._space.states(pool.take(some)), strict=True):
                if state is not None and (text := _hash(state)) not in self._seen:
                    self._seen.add(text)
                    program, predicted = pool.take([place]), float(log_s[place])
                    taken.append(Found(state, program, predicted, rung, float(costs[place])))
            self._measured.update(fingerprints(batch.take(some)).tolist())
            rest = np.setdiff1d(rest, some)
        return taken

    def _favour(self, found: Sequence[Found], results: Sequence[Any]) -> None:
        """See which rung gave the best program of a batch."""
        measured_s = [possible_latency_s(result) for result in results]
        if np.isfinite(measured_s).any():
            self._favourite = found[int(np.argmin(measured_s))].rung

    def _forbid(self, programs: Programs) -> None:
        batch, _ = self._space.describe(programs)
        self._measured.update(fingerprints(batch).tolist())

    def _look_ahead(self) -> None:
        """Estimate what another round would gain, by what the model says now, if not yet done."""
        num_measure, self._ahead = self._ahead, 0
        if not num_measure or not self._good:
            return
        batch, usable = self._space.describe(
            Programs.join([self._good[0][1], self._best.take(slice(_LEAST_POOL))])
        )
        if not usable[0]:
            return
        log_s = np.log(self._model.predict_asts(self._task, batch).latency_s)
        new = [n for n, key in enumerate(fingerprints(batch).tolist()) if key not in self._measured]
        ratios = np.sort(log_s[new] - log_s[0])[:num_measure]
        generator = np.random.default_rng((self._seed, self._round))
        spread = spread_within(self._residuals, _SPREAD)
        self._promise = expected_gain(ratios, spread, generator)
        # Errors of programs that are near each other are not independent, as the promise has it.
        self._gain = self._promise * min(1.0, self._kept / self._promised)
        self._low_gains = self._low_gains + 1 if self._gain < self._choice.least_gain else 0
        self._is_done = self._low_gains >= self._choice.patience


def _hash(state: Any) -> str:
    return hashlib.blake2b(str(state).encode(), digest_size=12).hexdigest()
