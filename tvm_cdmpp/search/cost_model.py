"""`CDMPPModel`: the CDMPP predictor as a cost model of TVM's auto-scheduler."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.arguments import as_path, check_seed
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec, find_device
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import FitConfig, Prediction, Predictor, PredictorConfig, load_weights
from tvm_cdmpp.search.explanation import Explanation
from tvm_cdmpp.search.online import OnlinePredictor

PythonBasedModel = load_tvm().auto_scheduler.cost_model.cost_model.PythonBasedModel


class CDMPPModel(PythonBasedModel):  # type: ignore[misc, valid-type]
    """The CDMPP predictor for `SketchPolicy`, `task.tune` and `TaskScheduler`.

    One model serves all tasks of a search on one device. Several threads may use it; they take
    turns.

    Parameters
    ----------
    seed
        One seed gives one sequence of scores.
    device
        Hardware that programs are measured on, a `DeviceSpec` or the name of a known device such
        as "t4". By default what each task's target names, as in `cuda -model=t4`; else this
        machine's CPU, with the cores and vector width of the task's hardware parameters, or its
        CUDA GPU; else a generic GPU.
    weights
        What to start from: `shipped`, trained on all recorded measurements; `evaluation`, trained
        without those of the networks that are held out; a file of `tvm-cdmpp train`; or None to
        learn in the search alone.
    config, fit_config
        Size of the network without weights, and how each update trains it.
    num_threads
        Threads for scoring; one is best while the search keeps the other cores busy.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        device: DeviceSpec | str | None = None,
        weights: str | Path | None = "shipped",
        config: PredictorConfig | None = None,
        fit_config: FitConfig | None = None,
        num_threads: int = 1,
    ) -> None:
        super().__init__()
        check_seed(seed)
        if isinstance(device, str):
            device = find_device(device)
        if device is not None and not isinstance(device, DeviceSpec):
            raise ConfigError(f"device must be a DeviceSpec or a name; got {device!r}.")
        if weights is not None and (config or fit_config):
            raise ConfigError("config and fit_config are for weights=None: these have their own.")
        self._online = OnlinePredictor(
            Predictor.untrained(config or PredictorConfig(), seed)
            if weights is None
            else load_weights(weights),
            device,
            seed=seed,
            fit_config=fit_config or FitConfig(),
            num_threads=num_threads,
        )
        self._lock = threading.Lock()

    @property
    def seed(self) -> int:
        """The seed, a loaded model's own after `load`."""
        return self._online.seed

    @property
    def num_failed(self) -> int:
        """Measurements that failed so far; they are never used as latencies."""
        return self._online.memory.num_failed

    @property
    def num_unscored(self) -> int:
        """Programs and records that could not be used so far; programs got the lowest score."""
        return self._online.memory.num_unscored

    def predict(self, task: Any, states: Sequence[Any]) -> list[float]:
        """Return one score per state, positive, higher is better.

        It is `-inf` for a program that was seen to be unable to build or run, or that is beyond the
        limits of the task's GPU, unless all of these are.

        Raises
        ------
        ConfigError
            These are not a task and its states; that they are of this task is seen by the first.
        """
        with self._lock:
            return self._online.score(task, states) if states else []

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Prediction:
        """Predict programs of a task, given by their compact ASTs: seconds and their spread.

        What was seen to be unable to run is not looked up.
        """
        with self._lock:
            return self._online.predict_asts(task, batch)

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn from `MeasureInput` and `MeasureResult` pairs.

        Failed ones only teach which programs cannot run. Those that cannot be used, because a cost
        is no number above 0 or the steps do not fit the task, are counted and logged.

        Raises
        ------
        ConfigError
            There are not as many results as inputs, or one is something else; nothing is learned
            then.
        """
        with self._lock:
            self._online.learn(inputs, results)

    def update_from_file(self, file_name: str, n_lines: int | None = None) -> None:
        """Learn from the records of an Ansor log, plain or packed, or of its first lines.

        All lines are read where `n_lines` is None or not above 0, as TVM does.

        The workloads of its records must be registered, as extracting the tasks of their network
        does. Lines that cannot be used are counted in `num_unscored` and logged.

        Raises
        ------
        ConfigError
            `n_lines` is no whole number, or `file_name` no name of a file.
        RecordError
            The file cannot be read, or no record in it can be used.
        """
        if not isinstance(n_lines, int | None):
            raise ConfigError(f"n_lines must be a whole number or None; got {n_lines!r}.")
        with self._lock:
            self._online.learn_from_log(as_path(file_name), n_lines)

    def explain(self, task: Any, state: Any, against: Any = None) -> Explanation:
        """Tell why a program of a task is predicted to take as long as it does.

        Parameters
        ----------
        task
            The `SearchTask`.
        state
            One of its states.
        against
            Another state, to tell what makes the difference.

        Returns
        -------
        explanation
            Leaves, loops, bounds, what moved the prediction, and the nearest of the programs that
            `update` was given.

        Raises
        ------
        CheckpointError
            The model was made with weights=None, which does not tell leaves apart.
        RecordError
            A state does not fit the task.
        """
        with self._lock:
            return self._online.explain(task, state, against)

    def save(self, file_name: str) -> None:
        """Write the predictor and all it was trained on to one file, atomically."""
        with self._lock:
            self._online.save(as_path(file_name))

    def load(self, file_name: str) -> None:
        """Continue from a saved model; the next update keeps what it had learned, and where.

        A model made without a device takes the one that the saved model was made with, if any.

        Raises
        ------
        CheckpointError
            If the file is not a model saved by `save`, or of another version; the model has not
            changed then.
        """
        with self._lock:
            self._online.load(as_path(file_name))
