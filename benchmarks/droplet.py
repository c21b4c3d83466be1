"""Coordinate descent on the machine: from the best program of a log, by measured latencies alone.

What Canesche et al. do ("Explore as a Storm, Exploit as a Raindrop", arXiv 2406.20037),
in the space of Ansor's programs: from the best program, factors move within a split or an unroll
limit changes, one at a time and the nearest first; whatever is better is where it goes on. It ends
when all neighbours of the best program were measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.bridge import failed, latency_s, load_tvm
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.search.evolve.evolution import moves
from tvm_cdmpp.search.evolve.programs import Programs
from tvm_cdmpp.search.evolve.space import ProgramSpace, fingerprints
from tvm_cdmpp.search.gain_scheduler import BatchMeasurer
from tvm_cdmpp.search.recorder import Progress, Recorder
from tvm_cdmpp.search.reports import TimeSplit

auto_scheduler = load_tvm().auto_scheduler


class MeasuredDescent:
    """Goes on from the best program of a log, a batch at a time, into the same log.

    Parameters
    ----------
    task
        The `SearchTask`.
    log
        Its Ansor log, with a program that runs.
    session
        An entered session.
    options
        How programs are measured.
    trials
        Programs in all, those of the log included.
    batch
        Programs to measure before it looks for a better one.
    seed
        Decides between neighbours that are equally near.
    on_batch
        Called with the time of the round so far, whenever a batch of it has reached the log.

    Attributes
    ----------
    elapsed
        The time of all rounds so far.
    """

    def __init__(
        self,
        task: Any,
        log: Path,
        session: MeasureSession,
        options: MeasureOptions,
        *,
        trials: int,
        batch: int,
        seed: int,
        on_batch: Callable[[TimeSplit], None],
    ) -> None:
        self.elapsed = TimeSplit()
        self._task, self._session, self._trials, self._batch = task, session, trials, batch
        self._generator = np.random.default_rng(seed)
        self._space = ProgramSpace(task)
        recorder = Recorder(log, {str(task.workload_key): Progress()})
        recorder.on_batch = lambda: on_batch(self._split())
        runner = options.runner(on_cpu=str(task.target.kind.name) == "llvm")
        self._measurer = BatchMeasurer(options.builder(), runner, recorder)
        self._begin, self._before = 0.0, (0.0, 0.0)
        self._measured, self._count = set[int](), 0
        self._best: tuple[float, Programs | None] = (math.inf, None)
        known = list(auto_scheduler.RecordReader(str(log)))
        if known:
            programs = self._space.read_states([measured.state for measured, _ in known])
            self._note(programs, [result for _, result in known])

    def rounds(self) -> Iterator[None]:
        """Measure batch by batch until the trials are used up or nothing near is better."""
        while self._count < self._trials and not self._session.stopping:
            self._begin = time.perf_counter()
            self._before = self._session.build_s, self._session.run_s
            programs, states = self._next(min(self._batch, self._trials - self._count))
            if not states:
                return
            inputs = [auto_scheduler.MeasureInput(self._task, state) for state in states]
            self._note(programs, self._measurer.measure(None, inputs))
            self.elapsed += self._split()
            yield

    def _next(self, count: int) -> tuple[Programs, list[Any]]:
        """Return the nearest neighbours of the best program that are not measured yet."""
        best = self._best[1]
        if best is None:
            return self._space.programs([], []), []
        near = moves(self._space, best)
        near = near.take(near.skeletons == best.skeletons[0])
        factors = np.log(np.maximum(near.numbers, 1) / np.maximum(best.numbers, 1))
        distance = np.abs(factors).sum(axis=1) + 1e-6 * self._generator.random(len(near))
        near = near.take(np.argsort(distance))
        batch, usable = self._space.describe(near)
        near, keys = near.take(usable), fingerprints(batch).tolist()
        chosen: list[int] = []
        states: list[Any] = []
        for place, key in enumerate(keys):
            if len(chosen) == count:
                break
            if key in self._measured:
                continue
            self._measured.add(key)
            (state,) = self._space.states(near.take([place]))
            if state is not None:
                chosen.append(place)
                states.append(state)
        return near.take(chosen), states

    def _note(self, programs: Programs, results: list[Any]) -> None:
        self._count += len(results)
        batch, _ = self._space.describe(programs)
        self._measured.update(fingerprints(batch).tolist())
        for place, result in enumerate(results):
            if not failed(result) and latency_s(result) < self._best[0]:
                self._best = latency_s(result), programs.take([place])

    def _split(self) -> TimeSplit:
        build_s = self._session.build_s - self._before[0]
        run_s = self._session.run_s - self._before[1]
        total_s = time.perf_counter() - self._begin
        return TimeSplit(search_s=total_s - build_s - run_s, build_s=build_s, run_s=run_s)
