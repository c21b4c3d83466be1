"""`tvm-cdmpp train`: trains a predictor on a record store.

Exit codes: 0 done, 2 a clear error, 130 interrupted; the same command goes on afterwards.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.cli.inputs import SPLITS
from tvm_cdmpp.cli.outputs import check_outputs

if TYPE_CHECKING:
    from tvm_cdmpp.models import Expert
    from tvm_cdmpp.train import PretrainSettings, Workers
    from tvm_cdmpp.train import Progress as TrainProgress

_ALL_RECORDS = "none"


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "train",
        help="train a predictor on a record store",
        description="Train a predictor on the programs of a record store that `data import` made. "
        "One network is trained for CPUs and one for GPUs; where one kind is named, FILE keeps its "
        "network of the other. The state is kept next to the weights, so that the same command "
        "goes on after an interruption. Under `torchrun`, several processes train together.",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="the record store")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="weights (.safetensors)"
    )
    parser.add_argument(
        "--split",
        default="networks",
        metavar="NAME",
        help=f"official split whose test part is left out: {SPLITS}; `none` for all records "
        "(default: networks)",
    )
    parser.add_argument(
        "--kinds",
        default="cpu,gpu",
        metavar="K[,K2]",
        help="kinds of devices to train for (default: cpu,gpu)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="sizes and training, such as summary.json of `autotune`, instead of the defaults "
        "below; options beside it go before",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N",
        help="training steps of each network (default: 21000)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the training (default: 0)"
    )
    parser.add_argument(
        "--per-task", type=int, metavar="N", help="programs of a task at most (default: 1000)"
    )
    parser.add_argument(
        "--width", type=int, metavar="N", help="of the network, a multiple of 4 (default: 96)"
    )
    parser.add_argument(
        "--layers", type=int, metavar="N", help="of the network's encoder (default: 2)"
    )
    parser.add_argument(
        "--torch-device",
        default="cpu",
        metavar="D",
        help="where PyTorch computes, such as cuda (default: cpu)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train, and write the weights."""
    from tvm_cdmpp.data import RecordStore
    from tvm_cdmpp.errors import ConfigError
    from tvm_cdmpp.train import KINDS, describe_training, join_experts, pretrain

    kinds = args.kinds.split(",")
    if not kinds or not set(kinds) <= set(KINDS):
        raise ConfigError(f"--kinds must be some of {','.join(KINDS)}; got '{args.kinds}'")
    taken = [("in the record store", args.store)]
    taken += [] if args.config is None else [("that of --config", args.config)]
    check_outputs([("--out", args.out)], taken)
    store, settings = RecordStore.open(args.store), _settings(args)
    command = " ".join(["tvm-cdmpp", *sys.argv[1:]])
    about = describe_training(store, dict.fromkeys(kinds, settings), command)
    _kept(args.out, kinds, about)  # rather now than when all is trained
    folder = args.out.with_name(f"{args.out.name}.run")
    with _workers() as workers:
        folder.mkdir(parents=True, exist_ok=True)
        experts = {}
        for kind in kinds:
            with _shown(kind, settings, workers) as show:
                experts[kind] = pretrain(
                    store,
                    folder,
                    settings,
                    kind=kind,
                    workers=workers,
                    torch_device=args.torch_device,
                    on_progress=show,
                )
        if workers.rank == 0:
            kept, told = _kept(args.out, kinds, about)
            about["kinds"] |= told
            join_experts(kept | experts, about).save(args.out)
            size_kib = args.out.stat().st_size / 1024
            print(f"wrote {args.out} ({size_kib:.0f} KiB)")
    return 0


def _kept(
    out: Path, kinds: list[str], about: dict[str, Any]
) -> tuple[dict[str, "Expert"], dict[str, Any]]:
    """Return networks of other kinds that a file holds, and what it says of how they were made."""
    from tvm_cdmpp.errors import ConfigError
    from tvm_cdmpp.models import TrainedPredictor
    from tvm_cdmpp.train import KINDS

    if set(kinds) == set(KINDS) or not out.is_file():
        return {}, {}
    known = TrainedPredictor.load(out)
    told = known.about.get("kinds")
    if not isinstance(told, dict) or not set(told) <= set(known.experts):
        raise ConfigError(
            f"{out} does not say which of its networks `train` has made, so that they cannot be "
            "kept; give another --out."
        )
    others = {kind: how for kind, how in told.items() if kind not in kinds}
    for key in ("data_hash", "schema_version", "split") if others else ():
        if known.about.get(key) != about[key]:
            raise ConfigError(
                f"{out} holds a network of {', '.join(others)}s with another {key}: expected "
                f"{about[key]}, got {known.about.get(key)}; give another --out."
            )
    return {kind: known.experts[kind] for kind in others}, others


def _settings(args: argparse.Namespace) -> "PretrainSettings":
    from dataclasses import replace

    from tvm_cdmpp.models import AdditiveConfig
    from tvm_cdmpp.train import PretrainSettings, TrainConfig, read_setting

    network, config = AdditiveConfig(), TrainConfig()
    if args.config is not None:
        network, config = read_setting(args.config)
    sizes = {"width": args.width, "hidden": args.width, "layers": args.layers}
    return PretrainSettings(
        split=None if args.split == _ALL_RECORDS else args.split,
        seed=args.seed,
        network=replace(network, **{k: v for k, v in sizes.items() if v is not None}),
        config=config if args.steps is None else replace(config, steps=args.steps),
        **({} if args.per_task is None else {"most_per_task": args.per_task}),
    )


@contextmanager
def _workers() -> Iterator["Workers"]:
    """Join the processes that `torchrun` started, if it did."""
    import torch.distributed as distributed

    from tvm_cdmpp.train import Workers

    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield Workers()
        return
    distributed.init_process_group("gloo")
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


@contextmanager
def _shown(
    kind: str, settings: "PretrainSettings", workers: "Workers"
) -> Iterator[Callable[["TrainProgress"], None]]:
    """Show a bar, on a terminal, and a line for each look at the validation part."""
    from tvm_cdmpp.cli.show import show_progress, stderr_console

    if workers.rank:
        yield lambda _: None
        return
    done = 0
    with show_progress(stderr_console(), f"{kind} steps", settings.config.steps, 0) as show_step:

        def show(progress: "TrainProgress") -> None:
            nonlocal done
            if progress.validation_error is None:
                return
            line = (
                f"{kind}  step {progress.step:,}/{progress.steps:,}  loss {progress.loss:.4f}  "
                f"validation median error {100 * progress.validation_error:.1f} %  "
                f"{progress.samples_per_s:,.0f} programs/s"
            )
            show_step(line, progress.step - done, "")
            done = progress.step

        yield show
