"""Training on for a new device: it gets better there, and what was known is not forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.test_loop import SMALL, operators_of, some_rows
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError, RecordError
from tvm_cdmpp.models.additive import AdditiveNetwork
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import Expert
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.finetuning import finetune
from tvm_cdmpp.train.loop import Trainer, predict
from tvm_cdmpp.train.windows import Windows

NEW = DeviceSpec(name="new", kind="cpu", cores=64, clock_hz=1e9)
SIZES: dict[str, Any] = {"groups_per_batch": 4, "programs_per_group": 8, "window_batches": 10}
CONFIG = TrainConfig(steps=100, learning_rate=2e-3, **SIZES)


@pytest.fixture(scope="module")
def expert() -> Expert:
    rows = some_rows()
    torch.manual_seed(0)
    network = AdditiveNetwork(SMALL)
    config = TrainConfig(steps=200, **SIZES)
    windows = Windows(rows, operators_of(rows), config, 0)
    network.fit_inputs(windows.draw(0).all()[0])
    trainer = Trainer(network, windows, config)
    while not trainer.done:
        trainer.train_window()
    return Expert(trainer.averaged, 1.5)


def target_rows(num_programs: int = 40) -> TrainingRows:
    source = some_rows(num_programs, seed=9)
    programs = np.arange(num_programs)
    latencies_s = 10.0 * source.latencies_s[programs]
    return TrainingRows.on(NEW, source.asts.take(programs), latencies_s, programs % 3)


def error(expert: Expert, rows: TrainingRows) -> float:
    off = predict(expert.network, rows)[0] - np.log(rows.latencies_s)
    return float(np.median(np.abs(off)))


@pytest.mark.parametrize("domain", ["none", "cmd", "mmd"])
def test_the_target_gets_better_and_the_sources_stay(expert: Expert, domain: str) -> None:
    target, sources = target_rows(), some_rows(60)
    config = TrainConfig(**{**vars(CONFIG), "domain": domain})
    before = {name: w.clone() for name, w in expert.network.state_dict().items()}
    found = finetune(expert, target, sources, config=config, unlabelled=target)
    assert error(found, target) < 0.7 * error(expert, target)
    assert error(found, sources) < error(expert, sources) + 0.15
    assert all(torch.equal(before[name], w) for name, w in expert.network.state_dict().items())
    assert found.spread_factor == 1.5


def test_the_domain_term_counts(expert: Expert) -> None:
    target, sources = target_rows(), some_rows(60)
    found = [
        finetune(expert, target, sources, unlabelled=target,
                 config=TrainConfig(**{**vars(CONFIG), "steps": 10, "domain": domain}))
        for domain in ("none", "cmd", "mmd")
    ]  # fmt: skip
    weights = [each.network.embed.weight for each in found]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_few_programs_tell_the_level(expert: Expert) -> None:
    target, sources = target_rows(200), some_rows(60)
    few, rest = target.take(np.arange(6)), target.take(np.arange(6, 200))
    found = finetune(expert, few, sources, config=CONFIG)
    assert error(found, rest) < 0.9 * error(expert, rest)
    # A device that the sources know has no level of its own: these few are outnumbered.
    known = TrainingRows.on(sources.machines[0], few.asts, few.latencies_s, few.tasks)
    before, after = error(expert, known), error(finetune(expert, known, sources), known)
    assert after > 0.7 * before


def test_a_killed_run_goes_on(expert: Expert, tmp_path: Path) -> None:
    target, sources, file = target_rows(), some_rows(60), tmp_path / "run"
    config = TrainConfig(**{**vars(CONFIG), "steps": 30, "domain": "cmd"})

    def run(on_step: Callable[[int], None] = lambda _: None, **more: Any) -> torch.Tensor:
        found = finetune(
            expert, target, sources, config=config, unlabelled=target, on_step=on_step, **more
        )
        return torch.cat([w.flatten() for w in found.network.state_dict().values()])

    def kill(step: int) -> None:
        if step == 20:
            raise KeyboardInterrupt

    straight = run()
    with pytest.raises(KeyboardInterrupt):
        run(kill, file=file)
    steps: list[int] = []
    assert torch.equal(run(steps.append, file=file), straight)
    assert steps == [30]
    with pytest.raises(ConfigError, match="state of a run with other settings or other data"):
        run(file=file, seed=1)
    assert not torch.equal(run(seed=1), straight)


def test_bad_input(expert: Expert) -> None:
    target = target_rows()
    failed = TrainingRows.on(NEW, target.batch(), np.full(40, np.inf), target.tasks)
    with pytest.raises(RecordError, match="neither the target nor the sources"):
        finetune(expert, failed, failed)
