"""The command line is an interface: its set of options changes on purpose only."""

import argparse
import re
from pathlib import Path

import pytest

from tvm_cdmpp.cli.main import build_parser
from tvm_cdmpp.data.splits import official_rules
from tvm_cdmpp.measure.sampling import SampleMix
from tvm_cdmpp.models import weights
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.train.finetuning import FINETUNE_CONFIG
from tvm_cdmpp.train.pretraining import PretrainSettings

OPTIONS: dict[str, set[str]] = {
    "tune": {"--trials", "--search", "--model", "--target", "--log", "--seed", "--json", "--export",
             "--input-shape", "--batch", "--input-dtype", "--build-timeout", "--run-timeout",
             "--weights", "--minutes", "--tasks", "--rpc", "--key", "--device", "--no-calibrate"},
    "compare": {"--models", "--trials", "--seeds", "--tasks", "--round", "--target", "--out",
                "--input-shape", "--batch", "--input-dtype", "--build-timeout", "--run-timeout"},
    "device show": {"--file"},
    "device detect": {"--json"},
    "device add": set(),
    "device remove": set(),
    "device calibrate": {"--device", "--target", "--programs", "--weights", "--rpc", "--key",
                         "--json", "--forget", "--build-timeout", "--run-timeout"},
    "rpc tracker": {"--host", "--port"},
    "rpc server": {"--tracker", "--key", "--host", "--port"},
    "doctor": {"--json"},
    "data collect": {"--log", "--programs", "--predictor", "--target", "--rpc", "--key", "--device",
                     "--seed", "--keep-noisy", "--input-shape", "--batch", "--input-dtype",
                     "--build-timeout", "--run-timeout"},
    "data import": {
        "--out", "--device", "--sources", "--workloads", "--networks", "--json",
        "--input-shape", "--batch", "--input-dtype",
    },
    "data info": {"--out", "--alike", "--json"},
    "train": {
        "--out", "--split", "--kinds", "--config", "--steps", "--seed", "--per-task", "--width",
        "--layers", "--torch-device",
    },
    "finetune": {
        "--weights", "--out", "--device", "--network", "--records", "--select", "--domain",
        "--domain-layer", "--split", "--steps", "--seed",
    },
    "adapt": {"--device", "--budget", "--networks", "--from-store", "--rpc", "--key", "--target",
              "--input-shape", "--input-dtype", "--input-batch", "--batch", "--weights", "--out",
              "--records", "--sources", "--keep-noisy", "--json"},
    "autotune": {
        "--out", "--trials", "--minutes", "--split", "--kinds", "--steps", "--per-task", "--seed"
    },
    "predict": {"--device", "--log", "--trials", "--batch", "--trace", "--weights", "--plot",
                "--queues", "--json", "--input-shape", "--input-dtype"},
    "explain": {"--task", "--against", "--device", "--weights", "--json"},
    "report": {"--out", "--device", "--weights"},
    "eval": {"--split", "--part", "--weights", "--per-task", "--json"},
}  # fmt: skip
COMMON = {"--help", "--verbose"}


def leaf_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands that do something, by what is typed to get there."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        return {"": parser}
    return {
        f"{name} {rest}".strip(): leaf
        for name, child in groups[0].choices.items()
        for rest, leaf in leaf_parsers(child).items()
    }


@pytest.mark.parametrize(
    ("line", "verbose"),
    [("doctor", 0), ("doctor -vv", 2), ("device show", 0), ("device show -v", 1),
     ("device -vv show", 2)],
)  # fmt: skip
def test_verbose_may_stand_anywhere(line: str, verbose: int) -> None:
    assert build_parser().parse_args(line.split()).verbose == verbose


def test_options_of_every_command() -> None:
    found = {
        name: {option for a in parser._actions for option in a.option_strings if option[1] == "-"}
        for name, parser in leaf_parsers(build_parser()).items()
    }
    assert found == {name: options | COMMON for name, options in OPTIONS.items()}
    assert all(len(options) <= 20 for options in OPTIONS.values())


def test_help_names_splits_and_defaults() -> None:
    texts = {
        name: " ".join(parser.format_help().split()).replace("- ", "-")  # of lines that end in -
        for name, parser in leaf_parsers(build_parser()).items()
    }
    for name in ("train", "finetune", "autotune", "eval"):
        words = re.findall(r"[\w-]+", texts[name])
        assert set(official_rules()) <= set(words), name
    ahead = PretrainSettings()
    for option, default in {
        "--steps N": ahead.config.steps,
        "--per-task N": ahead.most_per_task,
        "--width N": ahead.network.width,
        "--layers N": ahead.network.layers,
    }.items():
        assert re.search(rf" {option} [^()]*\(default: {default}\)", texts["train"]), option
    assert f"training steps (default: {FINETUNE_CONFIG.steps})" in texts["finetune"]
    about = TrainedPredictor.load(Path(weights.__file__).with_name("evaluation.safetensors")).about
    for name in ("eval", "finetune"):
        assert f"trained for the official split `{about['split']}`" in texts[name]
    mix = SampleMix()
    assert f"{mix.random:.0%} random ones, {mix.evolved:.0%} that" in texts["data collect"]


def test_defaults_of_tune() -> None:
    args = build_parser().parse_args(["tune", "resnet-18"])
    assert (args.trials, args.model, args.target, args.seed) == (1000, "cdmpp", "native", 0)
