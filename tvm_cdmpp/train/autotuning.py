"""The setting to train with, searched for: architecture, losses, label, optimiser, sampling.

Optuna draws settings (its tree-structured Parzen estimator) and ends those that fall behind (its
median pruner); each is trained for a few steps and judged by its error on the validation part. The
test part of a split is never looked at.

What was tried lies in one SQLite file, and half-trained networks beside it, so that a study goes on
after a kill. A setting depends on the seed and on the trials before it alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tvm_cdmpp.ast import SCHEMA_VERSION
from tvm_cdmpp.data import RecordStore
from tvm_cdmpp.errors import ConfigError, MissingDependencyError
from tvm_cdmpp.files import locked, write_atomically
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.pretraining import KINDS, PretrainSettings, Progress, pretrain
from tvm_cdmpp.train.setting import with_fields

_LOOKS = 8
"""Looks at the validation part in a trial, at each of which it may be ended."""
_BEFORE_ENDING = 5
"""Trials, and a quarter of the steps, before the first trial may be ended."""


TRIAL_CONFIG = TrainConfig(steps=1500, groups_per_batch=24)
"""A trial's training before anything is drawn; smaller batches than usual, to save time."""


@dataclass(frozen=True)
class Choice:
    """What a field may be: one of some values or, without any, a number within limits."""

    values: tuple[int | float | str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False


SPACE: Mapping[str, Choice] = {
    "network.width": Choice((64, 96, 128)),
    "network.layers": Choice((1, 2, 3)),
    "network.heads": Choice((1, 2, 4)),
    "network.hidden": Choice((64, 96, 128, 192)),
    "network.dropout": Choice(low=0.0, high=0.2),
    "network.input_noise": Choice(low=0.0, high=0.2),
    "config.learning_rate": Choice(low=5e-4, high=1e-2, log=True),
    "config.weight_decay": Choice(low=1e-3, high=1.0, log=True),
    "config.average": Choice((0.99, 0.995, 0.998, 0.999)),
    "config.label_power": Choice((0.0, 0.1, 0.3)),
    "config.huber_delta": Choice(low=0.05, high=1.0, log=True),
    "config.relative_weight": Choice(low=0.1, high=10.0, log=True),
    "config.ranking": Choice(("pairwise", "listmle")),
    "config.ranking_weight": Choice(low=0.0, high=1.0),
    "config.rare_exponent": Choice(low=0.0, high=1.0),
}
"""What is searched: fields of `AdditiveConfig` and of `TrainConfig`."""


@dataclass(frozen=True, kw_only=True)
class AutotuneSettings:
    """What a study is of."""

    kinds: tuple[str, ...] = KINDS
    """Kinds of devices; a setting is judged by the mean error of their networks."""
    base: PretrainSettings = field(
        default_factory=lambda: PretrainSettings(most_per_task=200, config=TRIAL_CONFIG)
    )
    """Split, seed, rows and steps of every trial; its network and losses are tried first."""

    def __post_init__(self) -> None:
        """Reject kinds that there are no networks for."""
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ConfigError(f"kinds must be some of {', '.join(KINDS)}; got {self.kinds}.")


def autotune(
    store: RecordStore,
    folder: Path,
    settings: AutotuneSettings,
    *,
    trials: int,
    minutes: float = math.inf,
    on_progress: Callable[[int, Progress], None] = lambda _, __: None,
    on_trial: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Search for the setting with the least error on the validation part.

    Parameters
    ----------
    store
        The records.
    folder
        Where the study is kept; one that is there is gone on with.
    settings
        What the study is of.
    trials
        Settings to have tried in the end, those of earlier runs among them.
    minutes
        Of this run, after which no further setting is begun.
    on_progress
        Told the number of the trial, and where its training is.
    on_trial
        Told each trial when it is over, as the summary has it.

    Returns
    -------
    summary
        JSON values, which `summary.json` holds as well: `trials`, all that were tried, and
        `network` and `config`, the best of them, as `read_setting` takes them.

    Raises
    ------
    ConfigError
        The folder is of another study, another process is at it, or nothing may be tried.
    MissingDependencyError
        Optuna is not installed.
    """
    if trials < 1 or not minutes > 0:
        raise ConfigError(
            f"trials must be at least 1 and minutes above 0; got {trials} and {minutes}."
        )
    optuna = _optuna()
    end = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "study.lock", f"the study in {folder}"):
        study = _open(optuna, folder, settings, store.content_hash)
        while len(over := _over(study)) < trials and time.monotonic() < end:
            # A sampler for each trial, so that a study that was left goes on as if it had not been.
            study.sampler = optuna.samplers.TPESampler(seed=settings.base.seed + len(over))
            trial = _next(optuna, study)
            chosen = {name: _draw(trial, name, choice) for name, choice in SPACE.items()}
            own = folder / "networks" / str(trial.number)
            run = partial(pretrain, store, own, with_setting(settings, chosen))
            error = _train(trial, run, settings, partial(on_progress, trial.number))
            pruned = optuna.trial.TrialState.PRUNED
            study.tell(trial, error, state=pruned if error is None else None)
            shutil.rmtree(own, ignore_errors=True)
            _write_summary(folder, study, settings, store)
            on_trial(_describe(_over(study)[-1]))
        return _write_summary(folder, study, settings, store)


def with_setting(settings: AutotuneSettings, chosen: Mapping[str, Any]) -> PretrainSettings:
    """Return what is trained in a trial."""
    base, parts = settings.base, _by_part(chosen)
    return replace(
        base,
        network=with_fields(base.network, parts["network"]),
        config=with_fields(base.config, parts["config"]),
        evaluate_every=max(1, base.config.steps // _LOOKS),
    )


def _by_part(chosen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {"network": {}, "config": {}}
    for name, value in chosen.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    return parts


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            f'autotune needs Optuna ({error}): pip install "tvm-cdmpp[autotune]"'
        ) from error
    logging.getLogger("optuna").setLevel(logging.WARNING)
    return optuna


def _open(optuna: Any, folder: Path, settings: AutotuneSettings, data_hash: str) -> Any:
    """Open the study of a folder, or begin it with the setting that is the default."""
    text = json.dumps([asdict(settings), data_hash, SCHEMA_VERSION, _space()])
    identity = hashlib.sha256(text.encode()).hexdigest()
    steps = settings.base.config.steps
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name="autotune",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_BEFORE_ENDING, n_warmup_steps=steps // 4
        ),
    )
    known = study.user_attrs.get("identity")
    if known is None:
        first = {"network": asdict(settings.base.network), "config": asdict(settings.base.config)}
        places = (name.split(".") for name in SPACE)
        default = {f"{part}.{key}": first[part][key] for part, key in places}
        study.enqueue_trial(default, skip_if_exists=True)
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise ConfigError(
            f"{folder} holds a study of other settings or other data; give the same ones, or "
            "choose another folder."
        )
    return study


def _space() -> dict[str, Any]:
    return {name: asdict(choice) for name, choice in SPACE.items()}


def _over(study: Any) -> list[Any]:
    """Return the trials that have an outcome, in order."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _next(optuna: Any, study: Any) -> Any:
    """Return the trial that an earlier run left half-done, or a new one."""
    left = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return optuna.trial.Trial(study, left[0]._trial_id) if left else study.ask()


def _draw(trial: Any, name: str, choice: Choice) -> Any:
    if choice.values:
        return trial.suggest_categorical(name, choice.values)
    return trial.suggest_float(name, choice.low, choice.high, log=choice.log)


def _train(
    trial: Any,
    run: Callable[..., Any],
    settings: AutotuneSettings,
    on_progress: Callable[[Progress], None],
) -> float | None:
    """Train the networks of a trial; their mean error, None if the trial fell behind."""
    best: dict[str, float] = dict(trial.user_attrs.get("errors", {}))
    for place, kind in enumerate(settings.kinds):

        def look(progress: Progress, place: int = place, kind: str = kind) -> None:
            on_progress(progress)
            if progress.validation_error is None:
                return
            best[kind] = progress.best_error
            trial.set_user_attr("errors", best)
            trial.report(best[kind], place * settings.base.config.steps + progress.step)
            if trial.should_prune():
                raise _BehindError

        try:
            run(kind=kind, on_progress=look)
        except _BehindError:
            return None
    return statistics.fmean(best[kind] for kind in settings.kinds)


class _BehindError(Exception):
    """Ends the training of a trial."""


def _write_summary(
    folder: Path, study: Any, settings: AutotuneSettings, store: RecordStore
) -> dict[str, Any]:
    """Write what a study found into its folder, and return it."""
    best = study.best_trial
    chosen = _by_part(best.params)
    summary = {
        "objective": "mean over kinds of the least median relative error on the validation part",
        "data_hash": store.content_hash,
        "schema_version": SCHEMA_VERSION,
        "settings": asdict(settings),
        "space": _space(),
        "best": _describe(best),
        **chosen,
        "trials": [_describe(trial) for trial in _over(study)],
    }
    text = json.dumps(summary, indent=1)
    write_atomically(folder / "summary.json", f"{text}\n".encode())
    read_back: dict[str, Any] = json.loads(text)
    return read_back


def _describe(trial: Any) -> dict[str, Any]:
    """Return a trial as JSON values; errors are fractions, those of ended trials their last."""
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "error": trial.value if trial.state.name == "COMPLETE" else None,
        "errors": trial.user_attrs.get("errors", {}),
        "seconds": trial.duration.total_seconds(),
        "setting": trial.params,
    }
