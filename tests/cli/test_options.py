"""The command line is an interface: its set of options changes on purpose only."""

import argparse

from tvm_cdmpp.cli.main import build_parser

OPTIONS = {
    "tune": {"--trials", "--model", "--target", "--log", "--seed", "--json", "--export",
             "--input-shape"},
    "compare": {"--models", "--trials", "--seeds", "--tasks", "--round", "--target", "--out",
                "--input-shape"},
    "doctor": {"--json"},
    "data import": {"--out", "--device", "--sources", "--workloads", "--json"},
}  # fmt: skip
COMMON = {"--help", "--verbose"}


def _commands(
    parser: argparse.ArgumentParser, name: str = ""
) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers that have no sub-commands, by the words that lead to them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                words: found
                for word, choice in action.choices.items()
                for words, found in _commands(choice, f"{name} {word}".strip()).items()
            }
    return {name: parser}


def test_options_of_every_command() -> None:
    found = {
        name: {option for a in parser._actions for option in a.option_strings if option[1] == "-"}
        for name, parser in _commands(build_parser()).items()
    }
    assert found == {name: options | COMMON for name, options in OPTIONS.items()}
    assert all(len(options) <= 8 for options in OPTIONS.values())


def test_defaults_of_tune() -> None:
    args = build_parser().parse_args(["tune", "resnet-18"])
    assert (args.trials, args.model, args.target, args.seed) == (1000, "cdmpp", "native", 0)
