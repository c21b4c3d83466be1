"""Options that commands which take a network share."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tvm_cdmpp.errors import ConfigError

if TYPE_CHECKING:
    from tvm_cdmpp.measure import MeasureOptions, RemoteDevices

SPLITS = "networks, devices, devices-shared-workloads, vendor or paper"
"""The official splits, see `tvm_cdmpp.data.splits`."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add `--target`, which `bridge.parse_target` reads."""
    parser.add_argument(
        "--target",
        default="native",
        metavar="T",
        help="TVM target, such as 'llvm -mcpu=znver2' (default: this machine's CPU)",
    )


def check_gpu_is_here(target: str) -> None:
    """Refuse a CUDA target where there is no GPU, without the seconds that TVM takes to load.

    Raises
    ------
    ConfigError
        There is none.
    UnknownDeviceError
        There is a driver, but it fails.
    """
    from tvm_cdmpp.devices import read_cuda_gpus

    if target.split()[:1] == ["cuda"] and not read_cuda_gpus():
        raise ConfigError(
            f"Programs for the target {target} cannot run on this machine: there is no "
            "CUDA GPU. Choose another target (`native` is this machine's CPU)."
        )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add what a model file may leave open; `input_options` reads it."""
    add_input_forms(parser)
    parser.add_argument(
        "--batch", type=int, metavar="N",
        help="size of the batch: of a named network, and of the open first axes of a model file",
    )  # fmt: skip


def add_input_forms(parser: argparse.ArgumentParser) -> None:
    """Add `--input-shape` and `--input-dtype`."""
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="NAME:1x3x224x224",
        help="shape of an input of a model file; repeat for further inputs. Where a command takes "
        "several files, FILE:NAME:1x3x224x224 is for one of them",
    )
    parser.add_argument(
        "--input-dtype",
        action="append",
        default=[],
        metavar="NAME:float16",
        help="element type of an input of a TorchScript file (default: that of its weights)",
    )


def input_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as `load_network` takes them.

    Raises
    ------
    ConfigError
        One is written wrongly.
    """
    return {
        "input_shapes": parse_input_shapes(args.input_shape),
        "batch": args.batch,
        "input_dtypes": parse_input_dtypes(args.input_dtype),
    }


def inputs_of(args: argparse.Namespace, networks: Sequence[str]) -> Callable[[str], dict[str, Any]]:
    """Return what gives the options of each of several networks.

    The batch is given to all, a shape or an element type to model files: to one of them if its path
    comes first, as in `model.onnx:data:1x3x224x224`, else to all.

    Raises
    ------
    ConfigError
        Shapes or element types are given, but no file to give them to, or one is written wrongly.
    """
    from tvm_cdmpp.networks import NETWORKS

    files = [name for name in networks if name not in NETWORKS]
    given = [*args.input_shape, *args.input_dtype]
    for_names = any(_owner(text, networks) in NETWORKS for text in given)
    if given and (not files or for_names):
        raise ConfigError("shapes and element types of inputs are for model files; got names")
    options: dict[str, dict[str, Any]] = {name: {"batch": args.batch} for name in networks}
    for file in files:
        options[file] |= {
            "input_shapes": parse_input_shapes(_of_file(file, args.input_shape, files)),
            "input_dtypes": parse_input_dtypes(_of_file(file, args.input_dtype, files)),
        }
    return options.__getitem__


def _of_file(file: str, texts: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return the texts that a file is meant by, without its path."""
    owners = [_owner(text, files) for text in texts]
    return [
        text if owner is None else text[len(file) + 1 :]
        for text, owner in zip(texts, owners, strict=True)
        if owner in (None, file)
    ]


def _owner(text: str, networks: Sequence[str]) -> str | None:
    """Return the network that an option names first; None where it names none."""
    return next((name for name in networks if text.startswith(f"{name}:")), None)


def parse_input_dtypes(texts: list[str]) -> dict[str, str]:
    """Read `NAME:float16`.

    Raises
    ------
    ConfigError
        A text has another form, or a name comes twice.
    """
    dtypes: dict[str, str] = {}
    for text in texts:
        match = re.fullmatch(r"(.+):(float(?:16|32|64)|u?int(?:8|16|32|64)|bool)", text)
        if match is None:
            raise ConfigError(f"--input-dtype takes NAME:TYPE, as in data:float16; got {text!r}")
        if match[1] in dtypes:
            raise ConfigError(f"--input-dtype gives the input {match[1]!r} twice")
        dtypes[match[1]] = match[2]
    return dtypes


def parse_input_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Read `NAME:1x3x224x224`.

    Raises
    ------
    ConfigError
        A text has another form, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = re.fullmatch(r"(.+):([1-9]\d*(?:x[1-9]\d*)*)", text)
        if match is None:
            raise ConfigError(
                f"--input-shape takes NAME:SIZExSIZE..., as in data:1x3x224x224; got {text!r}"
            )
        if match[1] in shapes:
            raise ConfigError(f"--input-shape gives the input {match[1]!r} twice")
        shapes[match[1]] = tuple(map(int, match[2].split("x")))
    return shapes


def parse_tasks(
    text: str | None, tasks: Sequence[Any], weights: Sequence[int]
) -> tuple[int, ...] | None:
    """Read `--tasks`: how many, or which; None for all.

    Parameters
    ----------
    text
        `M` for the tasks with the most work; else numbers, from 0 as in the table of tasks, and
        words in names, after commas. A single number of a task ends in a comma: `3,`.
    tasks, weights
        All tasks, and how often each occurs.

    Raises
    ------
    ConfigError
        There are no such tasks.
    """
    if text is None:
        return None
    from tvm_cdmpp.bridge import task_names
    from tvm_cdmpp.search import heaviest_tasks

    if re.fullmatch(r"-?\d+", text):
        if int(text) < 1:
            raise ConfigError(f"--tasks must be at least 1, got {text}")
        return tuple(heaviest_tasks(tasks, weights, int(text)))
    names, chosen = task_names(tasks), set[int]()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word.isdigit():
            found = {int(word)} & set(range(len(tasks)))
        else:
            found = {index for index, name in enumerate(names) if word in name}
        if not found:
            raise ConfigError(
                f"--tasks: {word!r} is none of the {len(tasks)} tasks, which are numbered from 0: "
                f"{'; '.join(names)}"
            )
        chosen |= found
    if not chosen:
        raise ConfigError("--tasks takes a number M, or numbers and words after commas; got none")
    return tuple(sorted(chosen))


def add_timeouts(parser: argparse.ArgumentParser) -> None:
    """Add the options that `measure_options` reads."""
    for step, default, what in (
        ("build", 15, "building"),
        ("run", 10, "running (all repeats; slow ones get fewer)"),
    ):
        parser.add_argument(
            f"--{step}-timeout",
            type=int,
            default=default,
            metavar="S",
            help=f"seconds after which {what} a program counts as failed (default: {default})",
        )


def measure_options(
    args: argparse.Namespace, remote: "RemoteDevices | None" = None
) -> "MeasureOptions":
    """Return how programs are measured, from the options of `add_timeouts`.

    Raises
    ------
    ConfigError
        A timeout is less than a second.
    """
    for step in ("build", "run"):
        timeout_s = getattr(args, f"{step}_timeout")
        if timeout_s < 1:
            raise ConfigError(f"--{step}-timeout must be at least 1 second, got {timeout_s}")
    from tvm_cdmpp.measure import MeasureOptions

    return MeasureOptions(
        build_timeout_s=args.build_timeout, run_timeout_s=args.run_timeout, remote=remote
    )
