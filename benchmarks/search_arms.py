"""The searches that `benchmarks.search` compares.

- `cdmpp`: the weights `evaluation`, which have not seen the networks of the tasks, in evolution
  without TVM; `cdmpp-long`: the same with four times as many programs, which still takes less time
  than those of XGBoost; `cdmpp-sketch`: in TVM's `SketchPolicy`; `cdmpp-untrained`: no weights.
- `xgb`: TVM's XGBoost as `TaskScheduler` sets it up, with rounds of 64, and random until more
  programs than in one round are known: for a task by itself, all through the first two rounds;
  `xgb-warm`: random in the first small round only; `xgb-adaptive`: that, retrained less often.
- `xgb-frozen`, `xgb-pretrained`: XGBoost on Ansor's features of recorded measurements, see
  `benchmarks.recorded_trees`; as it is, or with trees added for what the search measures.
- `random`: TVM's random model.
- `droplet-10`, `droplet-100`: so many programs of `xgb-warm`, then coordinate descent on the
  machine, see `benchmarks.droplet`; only where there are more trials than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.droplet import MeasuredDescent
from benchmarks.recorded_trees import PretrainedXGB
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.search import NetworkTuner, TimeSplit, TuneSettings

STOCK_ROUND = 64
_LONGER = 4
PRETRAINED_ARMS = frozenset({"xgb-frozen", "xgb-pretrained"})
"""Need a record store."""


class Search(Protocol):
    """Part of an arm's search."""

    elapsed: TimeSplit

    def rounds(self) -> Iterator[Any]:
        """Search, one round after the other."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What an arm is given."""

    task: Any
    seed: int
    trials: int
    round_size: int
    log: Path
    """Goes on where it ends."""
    session: MeasureSession
    options: MeasureOptions
    on_batch: Callable[[TimeSplit], None]
    """Told the time of the round so far after every batch."""


Arm = Callable[[Job], Iterator[Search]]
"""Yields the parts of a search; each is over before the next is asked for."""


def tuned(model: str | Callable[[Job], Any], search: str = "sketch") -> Arm:
    """Return an arm that tunes with a cost model: a kind of `make_cost_model`, or one to make."""

    def parts(job: Job) -> Iterator[Search]:
        settings = TuneSettings(
            trials=job.trials,
            round_size=job.round_size,
            seed=job.seed,
            search=search,
            measure=job.options,
        )
        yield NetworkTuner(
            [job.task],
            [1],
            model if isinstance(model, str) else model(job),
            settings,
            log=job.log,
            session=job.session,
            on_batch=job.on_batch,
        )

    return parts


def longer(arm: Arm) -> Arm:
    """Return an arm that measures more programs than asked for."""
    return lambda job: arm(replace(job, trials=_LONGER * job.trials))


def stock(job: Job) -> Iterator[Search]:
    """Tune as TVM does."""
    return tuned("xgb")(replace(job, round_size=STOCK_ROUND))


def droplet(first: int) -> Arm:
    """Return an arm that measures so many programs by `xgb-warm`, then descends."""

    def parts(job: Job) -> Iterator[Search]:
        yield from tuned("xgb-warm")(replace(job, trials=min(first, job.trials)))
        yield MeasuredDescent(
            job.task,
            job.log,
            job.session,
            job.options,
            trials=job.trials,
            batch=job.round_size,
            seed=job.seed,
            on_batch=job.on_batch,
        )

    return parts


def pretrained(trees: Path, *, frozen: bool) -> Arm:
    """Return an arm that tunes with trees of recorded measurements."""
    return tuned(lambda job: PretrainedXGB(trees, seed=job.seed, frozen=frozen))


def known_arms(trials: int, trees: Path | None) -> Mapping[str, Arm]:
    """Return the arms by name.

    Parameters
    ----------
    trials
        Of each search; droplet arms with no trials left for the descent are not among them.
    trees
        Of `benchmarks.recorded_trees`; None leaves out what needs them.
    """
    arms: dict[str, Arm] = {
        "cdmpp": tuned("cdmpp-evaluation", "evolve"),
        "cdmpp-long": longer(tuned("cdmpp-evaluation", "evolve")),
        "xgb-warm": tuned("xgb-warm"),
        "xgb-adaptive": tuned("xgb-adaptive"),
        "xgb": stock,
        "cdmpp-untrained": tuned("cdmpp-untrained", "evolve"),
        "cdmpp-sketch": tuned("cdmpp-evaluation"),
        "random": tuned("random"),
    }
    if trees is not None:
        arms["xgb-frozen"] = pretrained(trees, frozen=True)
        arms["xgb-pretrained"] = pretrained(trees, frozen=False)
    arms |= {f"droplet-{first}": droplet(first) for first in (10, 100) if first < trials}
    return arms
