"""What the metadata, the README and the constraints promise to each other."""

import ast
import re
from pathlib import Path

import pytest

import tvm_cdmpp
from tvm_cdmpp.models.weight_files import WEIGHTS

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("marker", "last"),
    [
        ("run-command", r"\.venv/bin/tvm-cdmpp tune resnet-18 .+"),
        ("test-command", r"\.venv/bin/python -m pytest -n 2 --dist loadfile"),
    ],
)
def test_readme_commands_are_one_line_that_installs(marker: str, last: str) -> None:
    blocks = re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)```", read("README.md"), re.S)
    assert len(blocks) == 1
    assert blocks[0].count("\n") == 1
    make, install, run = blocks[0].strip().split(" && ")
    assert make == "python3 -m venv .venv"
    assert re.fullmatch(r'\.venv/bin/pip install -q -c constraints\.txt -e "\.\[.+\]"', install)
    assert re.fullmatch(last, run)


def test_version_is_the_same_everywhere() -> None:
    assert f'version="{tvm_cdmpp.__version__}"' in read("setup.py")


def test_every_required_package_has_a_tested_version() -> None:
    lists = re.search(r"install_requires=.*?entry_points", read("setup.py"), re.S)
    assert lists is not None
    required = set(re.findall(r'^ +f?"([\w-]+)(?=[>="{])(?!":)', lists[0], re.M))
    required |= {"onnx", "hypothesis", "mypy", "orjson", "pytest", "ruff"}
    tested = set(re.findall(r"^([\w.-]+)==\d", read("constraints.txt"), re.M))
    assert len(required) > 15
    assert required <= tested


def test_sources_of_the_compiled_part_are_shipped() -> None:
    """An installed package holds them, and one that is made from an sdist compiles them."""
    listed = re.search(r'package_data=\{\s*"tvm_cdmpp": (\[.*?\])\s*\}', read("setup.py"), re.S)
    assert listed is not None
    package = ROOT / "tvm_cdmpp"
    shipped = {path for pattern in ast.literal_eval(listed[1]) for path in package.glob(pattern)}
    native = package / "extract" / "native"
    sources = {p for p in native.iterdir() if p.is_file() and p.suffix not in (".py", ".so")}
    assert native / "native.cpp" in sources
    assert len(sources) > 10
    data = {package / "data" / "splits.json", package / "devices" / "registry.json"}
    weights = {package / "models" / "weights" / f"{name}.safetensors" for name in WEIGHTS}
    assert all(path.stat().st_size < 1e6 for path in weights)
    assert shipped == {*sources, *data, *weights, package / "py.typed"}
