"""`tvm-cdmpp finetune`: trains weights on for a device or a network, and keeps what they knew.

Exit codes: 0 done, 2 a clear error, 130 interrupted; the same command goes on afterwards.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli.inputs import SPLITS
from tvm_cdmpp.cli.outputs import check_outputs
from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from tvm_cdmpp.models import TrainedPredictor
    from tvm_cdmpp.train import Domain, TargetSettings, TrainConfig

_METHODS = ("random", "kmeans", "center", "uncertain")
_DOMAINS = ("none", "cmd", "mmd")
_LAYERS = ("features", "encoder")


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "finetune",
        help="train weights on for a device or a network",
        description="Train weights on for a target: a device with few measured programs, or a "
        "network whose programs need no measurement at all. Programs of the other devices and "
        "networks of the record store are trained on as well, so that nothing is forgotten. The "
        "same command goes on after an interruption.",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the record store")
    parser.add_argument(
        "--weights", default="shipped", metavar="W",
        help="where to start: shipped, evaluation (trained for the official split `networks`) or a "
        "file (default: shipped)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="weights (.safetensors)"
    )
    parser.add_argument("--device", metavar="NAME", help="target device, as the store calls it")
    parser.add_argument("--network", metavar="NAME", help="target network, as the store calls it")
    parser.add_argument(
        "--records", type=int, metavar="N",
        help="measured programs of the target to learn from (default: 200 of a device, none of a "
        "network)",
    )  # fmt: skip
    parser.add_argument(
        "--select", choices=_METHODS, default="random", metavar="M",
        help=f"how these are chosen: {', '.join(_METHODS)} (default: random)",
    )  # fmt: skip
    parser.add_argument(
        "--domain", choices=_DOMAINS, metavar="D",
        help="distance by which latent vectors of the target's programs are kept near those of the "
        "others: none, cmd or mmd (default: none with measured programs, else cmd)",
    )  # fmt: skip
    parser.add_argument(
        "--domain-layer", choices=_LAYERS, default="features", metavar="L",
        help="which latent vectors: features or encoder (default: features)",
    )  # fmt: skip
    parser.add_argument(
        "--split", metavar="NAME",
        help="official split whose test part teaches nothing but what --records takes from it: "
        f"{SPLITS}; `none` for all records (default: that of the weights)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="training steps (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train on, and write the weights."""
    from tvm_cdmpp.cli.show import show_bar
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.models import TrainedPredictor, round_weights
    from tvm_cdmpp.train import (
        check_target,
        describe_finetuning,
        finetune,
        load_features,
        read_targets,
    )

    taken = [("that of --weights", Path(args.weights)), ("in the record store", args.store)]
    check_outputs([("--out", args.out)], taken)
    predictor = load_trained(args.weights)
    settings, config = _target(args, predictor), _config(args)
    store = RecordStore.open(args.store)
    check_target(store, settings.device, [] if settings.network is None else [settings.network])
    with show_bar("features", len(store)) as show:
        features = load_features(store, show)
    folder = args.out.with_name(f"{args.out.name}.run")
    folder.mkdir(parents=True, exist_ok=True)
    experts = dict(predictor.experts)
    targets = read_targets(store, features, predictor, settings)
    for target in targets:
        kind = target.kind
        if experts[kind].neighbours:
            print(
                f"{kind}: what `adapt` keeps of single programs it measured is not taken over from "
                f"{args.weights}, as it is of one device",
                file=sys.stderr,
            )
        print(
            f"{kind}: {len(target.measured):,} measured programs of the target, "
            f"{len(target.unlabelled):,} others, {len(target.sources):,} of the sources",
            file=sys.stderr,
        )
        with show_bar(f"{kind} steps", config.steps) as show:
            experts[kind] = finetune(
                experts[kind], target.measured, target.sources, config=config,
                unlabelled=target.unlabelled, seed=args.seed,
                file=folder / f"{kind}.safetensors", on_step=show,
            )  # fmt: skip
        round_weights(experts[kind].network)
    command = " ".join(["tvm-cdmpp", *sys.argv[1:]])
    about = describe_finetuning(store, predictor.about, settings, config, targets, command)
    TrainedPredictor(experts, about).save(args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1024:.0f} KiB)")
    return 0


def load_trained(weights: str) -> "TrainedPredictor":
    """Return weights to train on.

    Raises
    ------
    CheckpointError
        There are none, or they are damaged.
    ConfigError
        They are of a search.
    """
    from tvm_cdmpp.models import TrainedPredictor, load_weights

    predictor = load_weights(weights)
    if not isinstance(predictor, TrainedPredictor) or any(
        expert.ahead is not None for expert in predictor.experts.values()
    ):
        raise ConfigError(f"--weights must be those that `train` wrote; {weights} is of a search")
    return predictor


def _target(args: argparse.Namespace, predictor: "TrainedPredictor") -> "TargetSettings":
    from tvm_cdmpp.train import TargetSettings

    split = predictor.about.get("split") if args.split is None else args.split
    return TargetSettings(
        device=args.device,
        network=args.network,
        records=_records(args),
        select=args.select,
        split=None if split == "none" else split,
        seed=args.seed,
    )


def _records(args: argparse.Namespace) -> int:
    if args.records is not None:
        return int(args.records)
    return 0 if args.device is None else 200


def _config(args: argparse.Namespace) -> "TrainConfig":
    from dataclasses import replace

    from tvm_cdmpp.train import FINETUNE_CONFIG

    domain: Domain = args.domain or ("none" if _records(args) else "cmd")
    if not _records(args) and domain == "none":
        raise ConfigError("without records, only --domain cmd or mmd can learn of the target")
    config = replace(FINETUNE_CONFIG, domain=domain, domain_layer=args.domain_layer)
    return config if args.steps is None else replace(config, steps=args.steps)
