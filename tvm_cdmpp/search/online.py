"""A predictor that learns while a search goes on: scores programs, learns from measured batches.

Scores are 1 / seconds of the predicted order (`Prediction.order_s`), times the probability that the
program runs: positive, higher is better. Before the first update they are what the weights say that
the search starts from; these are never thrown away, whatever is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_cdmpp.arguments import check_seed
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import check_states, check_task, no_record_of, read_records
from tvm_cdmpp.devices import DeviceSpec, find_device
from tvm_cdmpp.errors import CDMPPError, CheckpointError, ConfigError, RecordError
from tvm_cdmpp.extract import dump_records
from tvm_cdmpp.models import (
    Content,
    FitConfig,
    Prediction,
    Predictor,
    PredictorConfig,
    TrainedPredictor,
    load_weights,
    predictor_of,
    read_checkpoint,
    write_checkpoint,
)
from tvm_cdmpp.search.explanation import Explanation, Measured, explain_program
from tvm_cdmpp.search.guard import Guard, Overruled
from tvm_cdmpp.search.memory import KnownTask, SearchMemory

_UNKNOWN_SCORE = 1e-6
"""Score of a program that could not be analysed: last, but it may still be measured."""


class OnlinePredictor:
    """What `CDMPPModel` does, without TVM's interface; not for several threads at once.

    Parameters
    ----------
    predictor
        What it starts with.
    device
        Where programs are measured; None for what each task's target names.
    seed
        One seed gives one sequence of scores.
    fit_config
        How each update trains a predictor that is trained in the search alone.
    num_threads
        Threads for scoring.
    """

    def __init__(
        self,
        predictor: Predictor | TrainedPredictor,
        device: DeviceSpec | None,
        *,
        seed: int,
        fit_config: FitConfig,
        num_threads: int,
    ) -> None:
        if not isinstance(num_threads, int) or num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1; got {num_threads!r}.")
        self.seed = seed
        self.memory = SearchMemory(device, seed)
        self._fit_config = fit_config
        self._take(predictor)
        self._num_threads = num_threads
        self._num_updates = 0
        self._num_behind = 0
        """Programs that were measured and that the predictor has not been trained on."""

    @staticmethod
    def start(
        weights: str | Path | None,
        device: DeviceSpec | str | None,
        *,
        seed: int,
        config: PredictorConfig | None,
        fit_config: FitConfig | None,
        num_threads: int,
    ) -> OnlinePredictor:
        """Return one that starts with some weights; see `CDMPPModel`.

        Raises
        ------
        ConfigError
            An argument cannot be meant.
        """
        check_seed(seed)
        if isinstance(device, str):
            device = find_device(device)
        if device is not None and not isinstance(device, DeviceSpec):
            raise ConfigError(f"device must be a DeviceSpec or a name; got {device!r}.")
        if weights is not None and (config or fit_config):
            raise ConfigError("config and fit_config are for weights=None: these have their own.")
        predictor: Predictor | TrainedPredictor
        if weights is None:
            predictor = Predictor.untrained(config or PredictorConfig(), seed)
        else:
            predictor = load_weights(weights)
        fit_config = fit_config or FitConfig()
        return OnlinePredictor(
            predictor, device, seed=seed, fit_config=fit_config, num_threads=num_threads
        )

    @property
    def origin(self) -> str:
        """See `TrainedPredictor.origin`."""
        predictor = self._predictor
        return predictor.origin if isinstance(predictor, TrainedPredictor) else ""

    def _take(self, predictor: Predictor | TrainedPredictor) -> None:
        if isinstance(predictor, Predictor):
            predictor.fit_config = self._fit_config
        self._predictor = predictor
        self._guard: Guard | None = None
        if isinstance(predictor, TrainedPredictor):
            self._guard = Guard(predictor, self.seed)

    def score(self, task: Any, states: Sequence[Any]) -> list[float]:
        """Return one score per state, positive; `-inf` rules a state out, but never all of them."""
        check_task(task)
        known = self.memory.task(task)
        check_states(states, known.shapes)
        self.memory.make_room()
        lines = dump_records(task, states).splitlines()
        programs = list(map(hash, lines))
        new = {p: line for p, line in zip(programs, lines, strict=True) if p not in known.scores}
        if new:
            self._score(known, new)
        scores = np.array([known.scores[program] for program in programs])
        ruled_out = self.memory.cannot_run(lines)
        if known.beyond_limits:
            ruled_out |= np.array([program in known.beyond_limits for program in programs])
        # TVM samples for ever when no candidate is left to it.
        if not ruled_out.all():
            scores[ruled_out] = -np.inf
        result: list[float] = scores.tolist()
        return result

    def _score(self, known: KnownTask, new: dict[int, bytes]) -> None:
        batch, errors, exceeded = known.extractor.extract_checked(b"\n".join(new.values()))
        self.memory.count_problems(errors)
        scores = np.full(len(batch), _UNKNOWN_SCORE)
        usable = np.flatnonzero(batch.leaf_counts > 0)
        if usable.size:
            found = self._predict(known, batch if usable.size == len(batch) else batch.take(usable))
            scores[usable] = np.maximum(found.runs_probability, 1e-3) / found.order_s
        programs = list(new)
        known.scores.update(zip(programs, scores.tolist(), strict=True))
        known.beyond_limits.update(programs[place] for place in exceeded)

    def explain(self, task: Any, state: Any, against: Any) -> Explanation:
        """Explain a prediction; see `CDMPPModel.explain`."""
        self.catch_up()
        known = self.memory.task(task)
        rows = self.memory.rows
        own = rows.take(np.flatnonzero(rows.tasks == known.number))
        measured = Measured(own.batch(), own.latencies_s)
        return explain_program(
            self._predictor,
            known.machine,
            known.extractor,
            task,
            state,
            against=against,
            measured=measured,
        )

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Prediction:
        """Predict programs of a task, given by their compact ASTs."""
        return self._predict(self.memory.task(task), batch)

    def _predict(self, known: KnownTask, batch: CompactASTBatch) -> Prediction:
        self.catch_up()
        device, num_threads = known.machine.device, self._num_threads
        if self._guard is None:
            return self._predictor.predict(batch, device, num_threads=num_threads)
        return self._guard.predict(
            self._predictor,
            batch,
            device,
            task=known.number,
            operator=known.operator,
            num_threads=num_threads,
        )

    @property
    def overruled(self) -> tuple[Overruled, ...]:
        """The classes of operator where the network is not believed now; see `guard`."""
        return self._guard.overruled if self._guard else ()

    def learn(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn from measurements; those of no use are counted.

        Raises
        ------
        ConfigError
            There are not as many results as inputs; nothing is learned then.
        """
        self.memory.count_problems(self._learn(inputs, results))

    def _learn(self, inputs: Sequence[Any], results: Sequence[Any]) -> dict[int, CDMPPError]:
        """Learn, and return what is wrong with measurements of no use, by place."""
        self.catch_up()
        before = self.memory.rows
        learned, problems = self.memory.learn(inputs, results)
        if len(learned):
            if self._guard:
                self._guard.judge(self._predictor, learned, before, self.memory.operators)
            self._num_updates += 1
            self._num_behind += len(learned)
            self.memory.forget_scores()
        return problems

    def catch_up(self) -> None:
        """Train on what was measured last, if not yet done.

        It is put off until somebody asks, as after the last batch of a search nobody may.
        """
        if not self._num_behind:
            return
        rows, seed = self.memory.rows, self.seed + self._num_updates
        if isinstance(self._predictor, TrainedPredictor):
            self._predictor.fit(rows, seed=seed, num_new=self._num_behind)
        else:
            self._predictor.fit(rows, seed=seed)
        if self._guard:
            self._guard.learn(rows)
        self._num_behind = 0

    def learn_from_log(self, log: Path, num_lines: int | None) -> None:
        """Learn from the records of an Ansor log.

        Raises
        ------
        ConfigError
            `num_lines` is no whole number.
        RecordError
            The file cannot be read, or no record in it can be used.
        """
        if not isinstance(num_lines, int | None):
            raise ConfigError(f"n_lines must be a whole number or None; got {num_lines!r}.")
        records, problems = read_records(log, num_lines)
        if not records:
            self.memory.count_problems({line - 1: error for line, error in problems.items()})
            raise no_record_of(log, problems)
        unused = self._learn(*zip(*records.values(), strict=True))
        lines = list(records)
        of_lines: dict[int, CDMPPError] = {
            **problems,
            **{lines[place]: error for place, error in unused.items()},
        }
        self.memory.count_problems({line - 1: error for line, error in of_lines.items()})
        if len(unused) == len(records):
            raise RecordError(
                f"None of the {len(records)} records of '{log}' can be used; the first: "
                f"{unused[min(unused)]}"
            )

    def save(self, path: Path) -> None:
        """Write the predictor and all it was trained on to one file, atomically."""
        self.catch_up()
        write_checkpoint(path, self.content())

    def content(self) -> Content:
        """Return what a checkpoint holds of the search; what it is behind with stays to be done."""
        own = Content(
            {
                "num_updates": self._num_updates,
                "seed": self.seed,
                "num_behind": self._num_behind,
            },
            {},
        )
        parts = {"predictor": self._predictor.content(), "memory": self.memory.content()}
        if self._guard is not None:
            parts["guard"] = self._guard.content()
        return Content.under(search=own, **parts)

    def load(self, path: Path) -> None:
        """Continue from a saved search.

        Raises
        ------
        CheckpointError
            The file is not one that `save` wrote, or is for another kind of device; nothing has
            changed then.
        """
        self.restore(read_checkpoint(path), path)

    def restore(self, content: Content, path: Path) -> None:
        """Continue from what a checkpoint holds; see `load`."""
        try:
            own = content.part("search").settings
            counters = int(own["num_updates"]), int(own["seed"])
            num_behind = int(own["num_behind"])
            predictor = predictor_of(content, path)
            guard = None
            if isinstance(predictor, TrainedPredictor):
                guard = Guard.of_content(content.part("guard"), predictor)
            self.memory.restore(content.part("memory"))
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"'{path}' holds a model but not the state of a search; missing or damaged: "
                f"{error}."
            ) from error
        self._take(predictor)
        self._guard = guard
        if guard is not None and not num_behind:
            guard.learn(self.memory.rows)
        self._num_updates, self.seed = counters
        self._num_behind = num_behind
