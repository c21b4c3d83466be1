"""The cost models a search can be given, by name.

The XGBoost baselines are TVM's own `XGBModel`: trees over features of the lowered programs,
retrained from scratch after every round. Two of its settings matter here:

- It returns random scores until *more* than `num_warmup_sample` records are known. The stock
  set-up, that of `TaskScheduler`, passes one round per task, so all first rounds and one more are
  random. `xgb-warm` passes one program less than a round, so only the first round is; a fair
  comparison needs both.
- TVM gives it half of the logical cores, which without hyper-threading leaves cores idle. Here it
  gets every physical core, to learn and to score. The CDMPP predictor scores on one.
"""

from collections.abc import Callable
from typing import Any

from tvm_cdmpp.bridge import load_tvm
from tvm_cdmpp.devices import read_host_cpu
from tvm_cdmpp.errors import ConfigError, MissingDependencyError
from tvm_cdmpp.search.reports import SEARCHES

auto_scheduler = load_tvm().auto_scheduler

COST_MODELS = (
    "cdmpp",
    "cdmpp-evaluation",
    "cdmpp-untrained",
    "xgb",
    "xgb-warm",
    "xgb-adaptive",
    "random",
)


def arm_of(name: str) -> tuple[str, str]:
    """Return the kind of cost model and the search that an arm of a comparison names.

    `cdmpp:evolve` is the model `cdmpp` in the search `evolve`; `cdmpp` alone is in `sketch`.

    Raises
    ------
    ConfigError
        There is no such model or search, or they do not go together.
    """
    kind, _, search = name.partition(":")
    search = search or "sketch"
    check_cost_model(kind)
    if search not in SEARCHES:
        raise ConfigError(
            f"unknown search {search!r} in {name!r}; expected one of {', '.join(SEARCHES)}"
        )
    check_search(kind, search)
    return kind, search


def make_cost_model(kind: str, *, seed: int, num_measures_per_round: int, num_tasks: int) -> Any:
    """Make a cost model for a search.

    Parameters
    ----------
    kind
        One of `COST_MODELS`: the CDMPP predictor with the shipped weights, with those that have
        not seen the held-out networks, or without any; XGBoost as `TaskScheduler` sets it up
        (`xgb`), with a random phase of one round (`xgb-warm`), and that with fewer retrainings as
        records pile up (`xgb-adaptive`); or random scores.
    seed
        Seed of the model. The random model, and XGBoost's random phase, draw from NumPy's global
        generator instead.
    num_measures_per_round
        Programs measured in one round.
    num_tasks
        Tasks that share the model.

    Returns
    -------
    model
        A `tvm.auto_scheduler` cost model.

    Raises
    ------
    ConfigError
        The kind is unknown.
    MissingDependencyError
        What the model needs is not installed.
    """
    makers: dict[str, Callable[[], Any]] = {
        "cdmpp": lambda: _make_cdmpp(seed, "shipped"),
        "cdmpp-evaluation": lambda: _make_cdmpp(seed, "evaluation"),
        "cdmpp-untrained": lambda: _make_cdmpp(seed, None),
        "xgb": lambda: _make_xgb(seed, num_tasks * num_measures_per_round),
        "xgb-warm": lambda: _make_xgb(seed, num_measures_per_round - 1),
        "xgb-adaptive": lambda: _make_xgb(seed, num_measures_per_round - 1, adaptive_training=True),
        "random": auto_scheduler.RandomModel,
    }
    check_cost_model(kind)
    return makers[kind]()


def check_cost_model(kind: str) -> None:
    """Raise `ConfigError` unless the kind is one of `COST_MODELS`."""
    if kind not in COST_MODELS:
        raise ConfigError(f"unknown cost model {kind!r}; expected one of {', '.join(COST_MODELS)}")


def check_search(kind: str, search: str) -> None:
    """Raise `ConfigError` unless a kind of cost model can be used in a kind of search."""
    if search == "evolve" and not kind.startswith("cdmpp"):
        raise ConfigError(
            "evolution, and a choice without trials, needs a cdmpp model, which scores programs "
            f"that TVM has not applied; got {kind!r}. Take one, or the search 'sketch' and trials."
        )


def num_threads(kind: str) -> int:
    """Return how many threads a cost model scores with in searches from here.

    One core each where that is faster; a search waits for the scores.
    """
    model, _, _ = kind.partition(":")
    return 1 if model in ("random", "cdmpp-untrained") else read_host_cpu().physical_cores


def _make_cdmpp(seed: int, weights: str | None) -> Any:
    # Imported here because it brings PyTorch, which the baselines do without.
    from tvm_cdmpp.search.cost_model import CDMPPModel

    threads = num_threads("cdmpp-untrained" if weights is None else "cdmpp")
    return CDMPPModel(seed=seed, weights=weights, num_threads=threads)


def _make_xgb(seed: int, num_warmup_sample: int, *, adaptive_training: bool = False) -> Any:
    try:
        # TVM reads seed 0 as "no seed" and takes its default.
        model = auto_scheduler.XGBModel(
            num_warmup_sample=num_warmup_sample, seed=seed, adaptive_training=adaptive_training
        )
    except ImportError as error:
        raise MissingDependencyError(
            f"the XGBoost baselines need the package xgboost: {error}. "
            "Install it with `pip install xgboost`."
        ) from error
    model.xgb_params["nthread"] = num_threads("xgb")
    return model
