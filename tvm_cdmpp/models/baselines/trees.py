"""Gradient-boosted trees (XGBoost: Chen and Guestrin, KDD 2016) over a summary of each program.

They learn log(measured / analytic latency), so that without trees the analytic estimate is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_cdmpp.ast import CompactASTBatch
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import CheckpointError, ConfigError, MissingDependencyError
from tvm_cdmpp.models.baselines.inputs import WINDOW, make_inputs, summarise, windows
from tvm_cdmpp.models.baselines.saved import ModelSize, read_kind
from tvm_cdmpp.models.checkpoint import Content, write_checkpoint
from tvm_cdmpp.models.contract import Prediction
from tvm_cdmpp.models.rows import Ints, TrainingRows

KIND = "trees"


@dataclass(frozen=True, kw_only=True)
class TreeOptions:
    """How trees are grown; what is not here is XGBoost's default."""

    rounds: int = 400
    """Trees of each fit."""
    depth: int = 10
    learning_rate: float = 0.06
    max_bins: int = 64
    """Values of a feature that are told apart."""
    row_share: float = 1.0
    """Share of the rows that each tree sees."""
    column_share: float = 1.0
    """Share of the features that each tree sees."""
    num_threads: int = 1
    """Threads to learn with; `predict` is told its own number."""

    def __post_init__(self) -> None:
        """Reject options that XGBoost would take to mean something else."""
        if min(self.rounds, self.depth, self.num_threads) < 1:
            raise ConfigError(
                "rounds, depth and num_threads must be at least 1; "
                f"got {self.rounds}, {self.depth} and {self.num_threads}."
            )

    def parameters(self, seed: int) -> dict[str, Any]:
        """Return these options by XGBoost's names."""
        return {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "max_depth": self.depth,
            "learning_rate": self.learning_rate,
            "max_bin": self.max_bins,
            "subsample": self.row_share,
            "colsample_bytree": self.column_share,
            "nthread": self.num_threads,
            "seed": seed,
            "verbosity": 0,
        }


@dataclass
class TreePredictor:
    """Trees over the summary of a program; untrained, it returns the analytic estimate.

    Failed programs are left out of training: every program is said to run.

    Attributes
    ----------
    options
        How `fit` grows trees.
    booster
        XGBoost's model; None before the first fit.
    programs_seen
        Programs that trees of the last fit were grown on, each as often as it was; 0 after loading.
    """

    options: TreeOptions = field(default_factory=TreeOptions)
    booster: Any = None
    programs_seen: int = 0

    def predict(
        self, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Prediction:
        """Predict latencies; see `CostPredictor`."""
        log_s = np.empty(len(batch))
        for first in range(0, len(batch), WINDOW):
            programs = np.arange(first, min(first + WINDOW, len(batch)))
            inputs = make_inputs(batch.take(programs), [device])
            log_s[programs] = inputs.log_analytic_s
            if self.booster is not None:
                self.booster.set_param({"nthread": num_threads})
                log_s[programs] += self.booster.inplace_predict(summarise(inputs))
        return Prediction(np.exp(log_s), np.ones(len(batch)))

    def fit(self, rows: TrainingRows, *, seed: int) -> None:
        """Add trees to those that are there; see `CostPredictor`.

        Raises
        ------
        MissingDependencyError
            XGBoost is not installed.
        """
        runs = np.flatnonzero(np.isfinite(rows.latencies_s))
        if not runs.size:
            return
        options = self.options
        self.booster = _xgboost().train(
            options.parameters(seed),
            _binned(rows, runs, options),
            options.rounds,
            xgb_model=self.booster,
        )
        self.programs_seen = int(options.rounds * options.row_share * runs.size)

    def save(self, path: Path) -> None:
        """Write the model; see `CostPredictor`. The trees are in XGBoost's UBJSON."""
        write_checkpoint(path, self.content())

    @classmethod
    def load(cls, path: Path) -> TreePredictor:
        """Read a model back; see `CostPredictor`.

        Raises
        ------
        MissingDependencyError
            XGBoost is not installed.
        """
        content = read_kind(path, KIND)
        settings: Mapping[str, Any] = content.settings
        try:
            options, booster = TreeOptions(**settings["options"]), None
            if "trees" in content.arrays:
                booster = _xgboost().Booster()
                booster.load_model(bytearray(content.arrays["trees"].tobytes()))
        except (KeyError, TypeError, ValueError) as error:  # XGBoost's error is a ValueError
            raise CheckpointError(f"The trees in '{path}' are damaged: {error}.") from error
        return cls(options, booster)

    def content(self) -> Content:
        """Return what a checkpoint holds of this model."""
        arrays = {}
        if self.booster is not None:
            arrays["trees"] = np.frombuffer(self.booster.save_raw("ubj"), np.uint8)
        return Content({"kind": KIND, "options": asdict(self.options)}, arrays)

    def size(self) -> ModelSize:
        """Return how many nodes the trees have, and their bytes."""
        trees = self.booster.get_dump() if self.booster is not None else []
        nodes = sum(tree.count("\n") for tree in trees)  # a line for each
        return ModelSize(nodes, ModelSize.of(self.content()).num_bytes)


def _binned(rows: TrainingRows, runs: Ints, options: TreeOptions) -> Any:
    """Return the rows as XGBoost grows trees from them: a byte per feature, read in windows."""
    import xgboost

    kept = list(_summaries(rows, runs)) if len(runs) <= WINDOW else None

    class Windows(xgboost.DataIter):
        """Reads rows several times: to count them, to find the bins, to fill them."""

        def __init__(self) -> None:
            super().__init__()
            self.reset()

        def reset(self) -> None:
            self.parts = iter(kept) if kept is not None else _summaries(rows, runs)

        def next(self, input_data: Any) -> bool:
            for summary, ratios in self.parts:
                input_data(data=summary, label=ratios)
                return True
            return False

    return xgboost.QuantileDMatrix(Windows(), max_bin=options.max_bins, nthread=options.num_threads)


def _summaries(
    rows: TrainingRows, runs: Ints
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]:
    """Yield windows of rows: what trees see, and ln measured over analytic latency."""
    for part, inputs in windows(rows, runs, WINDOW):
        yield summarise(inputs), np.log(rows.latencies_s[part]) - inputs.log_analytic_s


def _xgboost() -> Any:
    """Import XGBoost, which nothing else in this room needs."""
    try:
        import xgboost
    except ImportError as error:
        raise MissingDependencyError(
            f"trees need the package xgboost: {error}. Install it with `pip install xgboost`."
        ) from error
    return xgboost
