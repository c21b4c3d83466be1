"""The command line is an interface: its set of options changes on purpose only."""

from tvm_cdmpp.cli.main import build_parser, leaf_parsers

OPTIONS: dict[str, set[str]] = {
    "tune": {"--trials", "--model", "--target", "--log", "--seed", "--json", "--export",
             "--input-shape"},
    "compare": {"--models", "--trials", "--seeds", "--tasks", "--round", "--target", "--out",
                "--input-shape"},
    "device show": {"--file"},
    "device detect": {"--json"},
    "device add": set(),
    "doctor": {"--json"},
}  # fmt: skip
COMMON = {"--help", "--verbose"}


def test_options_of_every_command() -> None:
    found = {
        name: {option for a in parser._actions for option in a.option_strings if option[1] == "-"}
        for name, parser in leaf_parsers(build_parser()).items()
    }
    assert found == {name: options | COMMON for name, options in OPTIONS.items()}


def test_defaults_of_tune() -> None:
    args = build_parser().parse_args(["tune", "resnet-18"])
    assert (args.trials, args.model, args.target, args.seed) == (1000, "cdmpp", "native", 0)
