"""The search of one network: its tasks, one cost model, one log, round by round.

`NetworkTuner.rounds` yields after every round, so that a caller can show progress, stop, or take
turns between several searches. Choices:

- Which task is next is TVM's decision (see `scheduler`). Few trials make the rounds smaller, twice
  as small as TVM does, because a task without any record falls back to code that is slower than
  TVM's default, and because the rounds that come after know more.
  With fewer trials than tasks, where TVM gives up, only the heaviest tasks are tuned.
- Small rounds breed fewer candidates: TVM's 2,048 would take ten times as long as measuring two.
- A log that exists is continued: no program of it is bred again, they count as trials, and what
  the search knew is taken from the state that was saved with it, see `resuming`, or learned from
  the records anew.
- Every batch is on the disk before the next one starts; a killed search loses the one in flight.
- TVM's random models draw from NumPy's global generator, so each search swaps in a stream of its
  own while it runs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.bridge import LogReport, load_tvm, prepare_log, read_records, task_names
from tvm_cdmpp.errors import CheckpointError, ConfigError
from tvm_cdmpp.measure import HOPELESS, MeasureSession, SearchStopped, hopeless_error
from tvm_cdmpp.search.baselines import check_search, make_cost_model
from tvm_cdmpp.search.budget import heaviest_tasks, largest_round, search_params
from tvm_cdmpp.search.evolve.policy import EvolutionPolicy
from tvm_cdmpp.search.gain_scheduler import BatchMeasurer, GainScheduler
from tvm_cdmpp.search.numpy_stream import NumpyStream
from tvm_cdmpp.search.recorder import Progress, Recorder
from tvm_cdmpp.search.reports import RoundReport, TaskResult, TimeSplit, TuneSettings
from tvm_cdmpp.search.resuming import Resumable, read_state, write_state
from tvm_cdmpp.search.scheduler import StepwiseScheduler
from tvm_cdmpp.search.timed_model import TimedModel
from tvm_cdmpp.search.unroll_guard import UnrollGuard
from tvm_cdmpp.workloads import write_workloads

if TYPE_CHECKING:
    from tvm_cdmpp.search.guard import Overruled

auto_scheduler = load_tvm().auto_scheduler


class NetworkTuner:
    """One search: tunes a network's tasks together, with one cost model, into one log.

    Next to the log goes `workloads.jsonl`, which says what its workload keys mean.

    Parameters
    ----------
    tasks
        The network's tasks (`SearchTask`), all for one target.
    weights
        How often each occurs in the network.
    model
        A kind for `make_cost_model`, or a cost model of TVM's interface, which needs
        `predict_asts` as `CDMPPModel` has it where the search is "evolve".
    settings
        The budget and the set-up.
    log
        The Ansor log to write; one that exists is continued.
    session
        An entered session, which may be shared between searches. Until it ends, no other session
        can write the log.
    on_batch
        Called with the time of a round so far, whenever a batch of it has reached the log.

    Attributes
    ----------
    log_report
        What the log held at the start.
    left_out
        Indices of the tasks that are not tuned: the settings leave them out, or there are fewer
        trials than tasks.
    elapsed
        The time of all rounds of this run so far.
    state_problem
        Why the state that was saved with the log could not be taken, so that the model learned from
        the log again; empty where it was, or there was none.

    Raises
    ------
    ConfigError
        There are no tasks, or the model is unknown.
    RecordError
        The log is another network's or target's, is another session's, or cannot be written.
    """

    log_report: LogReport
    left_out: tuple[int, ...]
    elapsed: TimeSplit

    def __init__(
        self,
        tasks: Sequence[Any],
        weights: Sequence[int],
        model: Any,
        settings: TuneSettings,
        *,
        log: Path,
        session: MeasureSession,
        on_batch: Callable[[TimeSplit], None] = lambda split: None,
    ) -> None:
        if not tasks:
            raise ConfigError("the network has no task to tune")
        self._tasks, self._weights = list(tasks), [int(weight) for weight in weights]
        self._settings, self._session = settings, session
        self._names = task_names(tasks)
        session.hold(log)
        chosen = heaviest_tasks(tasks, weights, settings.trials, among=settings.tasks)
        self._tuned = chosen
        self.left_out = tuple(sorted(set(range(len(tasks))) - set(chosen)))
        self.log_report = prepare_log(log, tasks, tasks[0].target)
        write_workloads(log, tasks)
        self._round_size = min(settings.round_size, largest_round(settings.trials, len(chosen)))
        kind = model if isinstance(model, str) else type(model).__name__
        if isinstance(model, str):
            check_search(model, settings.search)
            model = make_cost_model(
                model,
                seed=settings.seed,
                num_measures_per_round=self._round_size,
                num_tasks=len(chosen),
            )
        self._given = model
        self._identity = {
            "search": settings.search,
            "model": kind,
            "weights": str(getattr(model, "origin", "")),
            "seed": settings.seed,
            "target": str(tasks[0].target),
        }
        self._model = TimedModel(UnrollGuard(model), session)
        self._progress = {str(task.workload_key): Progress() for task in tasks}
        self._recorder = Recorder(log, self._progress, settings.measure.remote)
        self._recorder.on_batch = lambda: on_batch(self._split_of_round())
        self._trials = self.log_report.num_programs
        self.elapsed = TimeSplit()
        self._is_done = False
        self._longest_round_s = 0.0
        self._numpy_stream = NumpyStream(settings.seed)
        self._scheduler = self._make_scheduler(log)
        self.state_problem = ""
        self._told: set[str] = set()
        if self._trials:
            self._resume(log)

    def rounds(self) -> Iterator[RoundReport]:
        """Search round by round until the trials are used up or nothing is left to measure.

        After `MeasureSession.stop` the round in progress is cut short and is the last one.

        Yields
        ------
        report
            After each round.

        Raises
        ------
        MeasureError
            No program at all could be built and run, or the folder that they are built in is full.
        RecordError
            The log could not be written.
        """
        tasks_seen: set[int] = set()
        while self._trials < self._settings.trials and not self._session.stopping:
            if self.out_of_time:
                break
            chosen = self._choose()
            if chosen is None:
                break
            report = self._run_round(chosen)
            yield report
            tasks_seen.add(chosen)
            self._check_hope(over=False, tasks_seen=len(tasks_seen))
        self._check_hope(over=not self._session.stopping, tasks_seen=len(tasks_seen))

    def results(self) -> tuple[TaskResult, ...]:
        """Return what was found for each task, in the order that the tuner was given."""
        return tuple(
            TaskResult(
                name=self._names[index],
                weight=weight,
                flops=float(task.compute_dag.flop_ct),
                trials=self._progress[task.workload_key].trials,
                latency_s=self._progress[task.workload_key].latency_s,
                tuned=index not in self.left_out,
            )
            for index, (task, weight) in enumerate(zip(self._tasks, self._weights, strict=True))
        )

    @property
    def trials(self) -> int:
        """Programs measured so far, those found in the log included."""
        return self._trials

    @property
    def out_of_time(self) -> bool:
        """Whether another round, as long as the longest so far, would be too much."""
        return self.elapsed.total_s + self._longest_round_s >= self._settings.time_s

    @property
    def overruled(self) -> "tuple[Overruled, ...]":
        """Classes of operator for which what was measured overrules the model's weights now."""
        return tuple(getattr(self._given, "overruled", ()))

    @property
    def saved_s(self) -> float:
        """What trials would have taken that were not done, as no task would gain by them."""
        unused = self._settings.trials - self._trials if self._is_done else 0
        measured = self._trials - self.log_report.num_programs
        return self.elapsed.total_s / max(1, measured) * unused

    @property
    def network_latency_s(self) -> float | None:
        """Sum of weight times best latency over the tuned tasks; None while one has none."""
        total_s = 0.0
        for index in self._tuned:
            latency_s = self._progress[self._tasks[index].workload_key].latency_s
            if latency_s is None:
                return None
            total_s += self._weights[index] * latency_s
        return total_s

    def _make_scheduler(self, log: Path) -> StepwiseScheduler:
        preload = [auto_scheduler.PreloadMeasuredStates(str(log))] if self._trials else None
        options = self._settings.measure
        tasks = [self._tasks[index] for index in self._tuned]
        weights = [self._weights[index] for index in self._tuned]
        builder = options.builder()
        on_cpu = str(tasks[0].target.kind.name) == "llvm"
        pace = self._session.pace if on_cpu and options.remote is None else None
        runner = options.runner(on_cpu=on_cpu)
        # 0 would mean "no seed" to TVM.
        seeds = [1 + index + len(tasks) * self._settings.seed for index in range(len(tasks))]
        if self._settings.search == "evolve":
            return GainScheduler(
                tasks,
                weights,
                policies=[
                    EvolutionPolicy(task, self._model, seed=seed)
                    for task, seed in zip(tasks, seeds, strict=True)
                ],
                measurer=BatchMeasurer(builder, runner, self._recorder, pace),
                round_size=self._round_size,
            )
        return StepwiseScheduler(
            tasks,
            weights,
            policies=[
                auto_scheduler.SketchPolicy(
                    task,
                    self._model,
                    params=search_params(self._round_size),
                    seed=seed,
                    verbose=0,
                    init_search_callbacks=preload,
                )
                for task, seed in zip(tasks, seeds, strict=True)
            ],
            measurer=auto_scheduler.measure.ProgramMeasurer(
                builder,
                runner,
                [self._recorder],
                0,
                # After so many failures in a row TVM would print every program.
                max_continuous_error=2**31 - 1,
            ),
            round_size=self._round_size,
        )

    def _resume(self, log: Path) -> None:
        """Go on from the saved state, and with the records that are not in it."""
        saved = None
        if isinstance(self._given, Resumable):
            try:
                saved = read_state(log, self._identity)
            except CheckpointError as error:
                self.state_problem = str(error)
        if saved is None:
            self._scheduler.restore(log)
            self._learn(log, 0)
            return
        try:
            self._given.restore(saved.content.part("model"), saved.path)
            self._model.model.restore(saved.content.part("unrolling"))
            self._recorder.restore(saved.content.part("recorder"))
            self._scheduler.restore_content(saved.content.part("scheduler"))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The state of the search in '{saved.path}' is damaged: {error}. Delete it, and "
                "the search learns from the log again."
            ) from error
        if not saved.is_whole:
            self._scheduler.count(self._learn(log, saved.num_lines))

    def _learn(self, log: Path, first: int) -> Sequence[Any]:
        """Learn from the records of the log after so many lines; return their inputs."""
        tasks = {str(task.workload_key): task for task in self._tasks}
        records, _ = read_records(log)
        known = [
            (auto_scheduler.MeasureInput(task, measured.state), result)
            for line, (measured, result) in records.items()
            if line > first and (task := tasks.get(str(measured.task.workload_key))) is not None
        ]
        if not known:
            return ()
        for measured, result in known:
            self._recorder.count(measured, result)
        inputs, results = zip(*known, strict=True)
        self._scheduler.preload(inputs, results)
        with self._numpy_stream.used():
            self._model.update(list(inputs), list(results))
        return list(inputs)

    def _save(self) -> None:
        """Save all that the next round depends on, but what TVM keeps to itself."""
        if isinstance(self._given, Resumable):
            parts = {
                "model": self._given.content(),
                "unrolling": self._model.model.content(),
                "recorder": self._recorder.content(),
                "scheduler": self._scheduler.content(),
            }
            write_state(self.log_report.path, self._identity, parts)

    def _choose(self) -> int | None:
        """Return the task of a round, which begins here: policies may have to learn for it.

        None where no task would gain anything, or the search was stopped meanwhile.
        """
        self._begin, self._clocks_before = time.perf_counter(), self._clocks()
        try:
            with self._numpy_stream.used():
                chosen = self._scheduler.next_task()
        except SearchStopped:
            return None
        if chosen is None:
            self._is_done = True
            self.elapsed += self._split_of_round()
        return chosen

    def _run_round(self, chosen: int) -> RoundReport:
        recorder = self._recorder
        recorder.start_round()
        num_programs = min(self._round_size, self._settings.trials - self._trials)
        try:
            with self._numpy_stream.used():
                self._scheduler.tune_task(chosen, num_programs)
        except Exception:
            if recorder.error is not None:
                raise recorder.error from None
            if not self._session.stopping:
                raise
        else:  # a round that was cut short was not learned from
            if recorder.measured:
                self._save()
        self._trials += recorder.measured
        split = self._split_of_round()
        self.elapsed += split
        self._longest_round_s = max(self._longest_round_s, split.total_s)
        return self._report(self._tuned[chosen], split)

    def _split_of_round(self) -> TimeSplit:
        """Return the time of the round so far."""
        spent = [a - b for a, b in zip(self._clocks(), self._clocks_before, strict=True)]
        total_s = time.perf_counter() - self._begin
        return TimeSplit(
            search_s=total_s - sum(spent),
            predict_s=spent[0],
            update_s=spent[1],
            build_s=spent[2],
            run_s=spent[3],
        )

    def _report(self, index: int, split: TimeSplit) -> RoundReport:
        task, recorder, elapsed_s = self._tasks[index], self._recorder, self.elapsed.total_s
        measured_in_run = max(1, self._trials - self.log_report.num_programs)
        left = self._settings.trials - self._trials
        return RoundReport(
            task=index,
            name=self._names[index],
            task_latency_s=self._progress[task.workload_key].latency_s,
            network_latency_s=self.network_latency_s,
            measured=recorder.measured,
            failures=dict(recorder.failures),
            trials=self._trials,
            trials_in_all=self._settings.trials,
            split=split,
            elapsed_s=elapsed_s,
            eta_s=elapsed_s / measured_in_run * left,
            overruled=self._newly_overruled(),
        )

    def _newly_overruled(self) -> "tuple[Overruled, ...]":
        found = tuple(o for o in self.overruled if o.operator not in self._told)
        self._told.update(o.operator for o in found)
        return found

    def _clocks(self) -> tuple[float, float, float, float]:
        model, session = self._model, self._session
        return model.predict_s, model.update_s, session.build_s, session.run_s

    def _check_hope(self, *, over: bool, tasks_seen: int) -> None:
        """Raise when no program is valid, and more of them would change nothing."""
        valid = any(progress.latency_s is not None for progress in self._progress.values())
        enough = self._trials >= min(HOPELESS, self._settings.trials) and tasks_seen > 1
        if valid or not (over or enough) or not self._trials:
            return
        raise hopeless_error(self.log_report.path, self._trials, self._recorder.all_failures)
