"""How few trials are divided: which tasks get any, how large rounds are, how much each breeds."""

from collections.abc import Sequence
from typing import Any

from tvm_cdmpp.bridge import load_tvm

auto_scheduler = load_tvm().auto_scheduler

# Candidates per generation: for each program that a round measures, and at least.
_CANDIDATES_PER_PROGRAM, _LEAST_POPULATION = 128, 256


def largest_round(trials: int, num_tasks: int) -> int:
    """Return how many programs a round may have, so that few trials reach all tasks.

    Every task gets one round, and half of the trials are left for more.

    The first rounds choose with a model that knows nothing of a task yet. Rounds of less than two
    programs would leave cores idle while they are built.
    """
    return max(trials // (2 * num_tasks), min(2, trials // num_tasks))


def search_params(round_size: int) -> dict[str, Any]:
    """Return the parameters of `SketchPolicy` for a round of so many programs.

    They are TVM's defaults, except that rounds of fewer than 16 programs get a population in
    proportion, so that choosing programs does not take many times as long as measuring them.
    """
    params = dict(auto_scheduler.SketchPolicy.DEFAULT_PARAMS)
    wanted = max(_LEAST_POPULATION, _CANDIDATES_PER_PROGRAM * round_size)
    name = "evolutionary_search_population"
    params[name] = min(params[name], wanted)
    return params


def heaviest_tasks(
    tasks: Sequence[Any],
    weights: Sequence[int],
    number: int,
    *,
    among: Sequence[int] | None = None,
) -> list[int]:
    """Return the indices of the tasks with the most work, weight x FLOPs, in their old order.

    Only those `among` which they are looked for, if that is given.
    """
    work = [w * float(t.compute_dag.flop_ct) for t, w in zip(tasks, weights, strict=True)]
    by_work = sorted(range(len(tasks)) if among is None else among, key=lambda index: -work[index])
    return sorted(by_work[:number])
