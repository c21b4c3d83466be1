"""`CDMPPModel`: the CDMPP predictor as a cost model of TVM's auto-scheduler."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_cdmpp.arguments import as_path
from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import Content, FitConfig, Prediction, PredictorConfig
from tvm_cdmpp.search.explanation import Explanation
from tvm_cdmpp.search.guard import Overruled
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
        Where programs are measured, a `DeviceSpec` or a known name such as "t4". By default what a
        task's target names, as in `cuda -model=t4`; else this machine's CPU, with the cores and
        vector width of the task's hardware parameters, or its CUDA GPU; else a generic GPU.
    weights
        What to start from: `shipped`, trained on all recorded measurements; `evaluation`, without
        those of the held-out networks; a file of `tvm-cdmpp train`; or None for nothing.
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
        options: dict[str, Any] = {"config": config, "fit_config": fit_config}
        self._online = OnlinePredictor.start(
            weights, device, seed=seed, num_threads=num_threads, **options
        )
        self._lock = threading.Lock()

    @property
    def origin(self) -> str:
        """What tells the training that the weights come from; empty without one."""
        return self._online.origin

    @property
    def seed(self) -> int:
        """The seed, a loaded model's own after `load`."""
        return self._online.seed

    @property
    def num_failed(self) -> int:
        """Measurements that failed so far."""
        return self._online.memory.num_failed

    @property
    def num_unscored(self) -> int:
        """Programs and records that could not be used so far; programs got the lowest score."""
        return self._online.memory.num_unscored

    @property
    def overruled(self) -> tuple[Overruled, ...]:
        """The classes of operator for which the weights it started with turned out to be wrong.

        What was measured decides there, through trees or the analytic estimate.
        """
        return self._online.overruled

    def predict(self, task: Any, states: Sequence[Any]) -> list[float]:
        """Return one score per state, positive, higher is better; `-inf` rules a program out.

        Such was seen to fail, or is beyond the limits of the task's GPU, unless all are.

        Raises
        ------
        ConfigError
            These are not a task and its states; that they are of this task is seen by the first.
        """
        with self._lock:
            return self._online.score(task, states) if states else []

    def predict_asts(self, task: Any, batch: CompactASTBatch) -> Prediction:
        """Predict programs of a task; what was seen to be unable to run is not looked up."""
        with self._lock:
            return self._online.predict_asts(task, batch)

    def update(self, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        """Learn from `MeasureInput` and `MeasureResult` pairs; see also `catch_up`.

        Failed ones only teach which programs cannot run; those of no use are counted and logged.

        Raises
        ------
        ConfigError
            There are not as many results as inputs, or one is something else.
        """
        with self._lock:
            self._online.learn(inputs, results)

    def catch_up(self) -> None:
        """Train on what `update` was told last, which else waits until scores are asked for."""
        with self._lock:
            self._online.catch_up()

    def update_from_file(self, file_name: str, n_lines: int | None = None) -> None:
        """Learn from an Ansor log, plain or packed, or from its first lines where `n_lines` > 0.

        The workloads of its records must be registered, as extracting the tasks of their network
        does. Lines that cannot be used are counted in `num_unscored` and logged.

        Raises
        ------
        ConfigError
            `n_lines` is no whole number, or `file_name` no name of a file.
        RecordError
            The file cannot be read, or no record in it can be used.
        """
        with self._lock:
            self._online.learn_from_log(as_path(file_name), n_lines)

    def explain(self, task: Any, state: Any, against: Any = None) -> Explanation:
        """Tell why a state is predicted to take so long, or longer than another one.

        Raises
        ------
        CheckpointError
            The model was made with weights=None, which does not tell leaves apart.
        """
        with self._lock:
            return self._online.explain(task, state, against)

    def content(self) -> Content:
        """Return what a checkpoint holds of this model."""
        with self._lock:
            return self._online.content()

    def restore(self, content: Content, path: Path) -> None:
        """Continue from what a checkpoint holds; see `load`."""
        with self._lock:
            self._online.restore(content, path)

    def save(self, file_name: str) -> None:
        """Write the predictor and all it was trained on to one file."""
        with self._lock:
            self._online.save(as_path(file_name))

    def load(self, file_name: str) -> None:
        """Continue from a saved model, and with its device if this one was made without.

        Raises
        ------
        CheckpointError
            The file is no model saved by `save`, or of another version; nothing has changed then.
        """
        with self._lock:
            self._online.load(as_path(file_name))
