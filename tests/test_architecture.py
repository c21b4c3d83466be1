"""The direction of imports, and what is allowed where, read from the source files themselves."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tvm_cdmpp

PACKAGE = Path(tvm_cdmpp.__file__).parent

# A room may import itself and the rooms of lower rank; rooms of one rank do not know each other.
RANKS = {
    "errors": 0,
    "arguments": 1,
    "files": 1,
    "offers": 0,
    "ast": 1,
    "devices": 2,
    "data": 3,
    "bridge": 4,
    "extract": 5,
    "models": 5,
    "networks": 6,
    "workloads": 7,
    "train": 8,
    "measure": 9,
    "search": 10,
    "replay": 11,
    "report": 12,
    "cli": 13,
    "__main__": 14,
}
TVM_PLACES = (
    "bridge",
    "extract.dag",
    "extract.extents",
    "extract.handover",
    "extract.operations",
    "extract.tir",
    "extract.tir_index",
    "networks",
    "workloads",
    "measure",
    "replay",
    "search",
)
TVM_RUNTIME_PLACES = (*TVM_PLACES, "cli")
CLI_PLACES = ("cli", "__main__")
# What may be named only in some places: an import, or a dotted name in an expression.
ALLOWED = {
    "tvm": TVM_PLACES,
    "tilelang": (),
    "optuna": ("train.autotuning",),
    "xgboost": ("search.baselines", "models.baselines.trees"),
    "tvm_cdmpp.bridge": TVM_RUNTIME_PLACES,
    "tvm_cdmpp.bridge.libcuda_stub": ("bridge.runtime",),
    "tvm_cdmpp.ast": ("ast", "extract", "models", "train", "search", "replay", "cli"),
    "argparse": CLI_PLACES,
    "rich": CLI_PLACES,
    "print": CLI_PLACES,
    "input": (),
    "sys.exit": CLI_PLACES,
    "SystemExit": CLI_PLACES,
    "logging.basicConfig": CLI_PLACES,
    "os.environ": ("bridge.children",),
    "os.getenv": (),
    "os.putenv": (),
    "pickle": (),
    "cloudpickle": (),
    "marshal": (),
    "shelve": (),
    "torch.load": (),
    "eval": (),
    "exec": (),
}


def _is_below(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def _loaded_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            yield _dotted(node)


def find_violations(source: str, module: str) -> list[str]:
    """What a module, named without the package's name, must not do."""
    tree = ast.parse(source)
    imports = set(_imports(tree))
    room = module.split(".")[0]
    found = [f"{module} imports {name} relatively" for name in imports if name.startswith(".")]
    for name in imports:
        other = name.split(".")[1] if name.startswith("tvm_cdmpp.") else room
        if other in RANKS and other != room and RANKS[other] >= RANKS[room]:
            found.append(f"{module} imports {name}, which comes after it")
        elif room != "__main__" and other in RANKS and other != room and name.count(".") > 2:
            found.append(f"{module} imports {name} from a drawer; the room offers what others need")
    # A plain `tvm` or `rich` in an expression may be a local variable: only imports count there.
    called = {name for name in _loaded_names(tree) if name in ALLOWED and name not in RANKS}
    for rule, places in ALLOWED.items():
        used = rule in called or any(_is_below(name, (rule,)) for name in imports)
        if used and not _is_below(module, places):
            found.append(f"{module} uses {rule}")
    return found


def _modules() -> dict[str, Path]:
    modules = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = file
    del modules[""]  # the table of contents resolves its names lazily
    return modules


@pytest.mark.parametrize("module", sorted(_modules()))
def test_module_keeps_the_rules(module: str) -> None:
    assert module.split(".")[0] in RANKS, "a new room: give it a rank"
    assert find_violations(_modules()[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.head", "import tvm"),
        ("models.head", "from tvm.auto_scheduler import SearchTask"),
        ("models.head", "def f():\n    from tvm_cdmpp.search import tune"),
        ("models.head", "from tvm_cdmpp.extract import analyse"),
        ("data.store", "import tvm"),
        ("data.store", "from tvm_cdmpp.extract import StepExtractor"),
        ("extract.extractor", "import tvm"),
        ("extract.native", "from tvm_cdmpp.bridge import load_tvm"),
        ("devices.hardware", "import tvm"),
        ("models.head", "from tvm_cdmpp import train"),
        ("search.tune", "from tvm_cdmpp.data.store import RecordStore"),
        ("models.head", "from ..errors import ConfigError"),
        ("models.head", "from tvm_cdmpp.bridge import load_tvm"),
        ("bridge.runtime", "from tvm_cdmpp.ast import Leaf"),
        ("search.tune", "import xgboost as xgb"),
        ("search.tune", "import argparse"),
        ("search.tune", "print('x')"),
        ("search.tune", "import sys\nsys.exit(1)"),
        ("search.tune", "import os\nx = os.environ['A']"),
        ("search.tune", "from os import environ"),
        ("cli.tune", "import os\nos.environ.get('A')"),
        ("cli.tune", "import pickle"),
        ("cli.tune", "eval('1')"),
        ("cli.tune", "import tvm"),
        ("train.loop", "import torch\ntorch.load('x')"),
    ],
)
def test_rules_catch_violations(module: str, source: str) -> None:
    assert len(find_violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search.tune", "from tvm_cdmpp.bridge import load_tvm\ntvm = load_tvm()\ntvm.te"),
        ("search.tune", "from tvm_cdmpp.bridge import default_target"),
        ("extract.native", "from tvm_cdmpp.devices import Hardware"),
        ("extract.dag", "import tvm\nfrom tvm_cdmpp.ast import Leaf"),
        ("models.head", "model.eval()\nself.print(1)"),
        ("cli.tune", "import argparse, sys\nprint(1)\nsys.exit(0)"),
    ],
)
def test_rules_allow_what_is_right(module: str, source: str) -> None:
    assert find_violations(source, module) == []


def test_import_of_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, tvm_cdmpp, tvm_cdmpp.cli.main\n"
        "print({'tvm', 'torch', 'xgboost', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_public_names_resolve() -> None:
    assert set(tvm_cdmpp.__all__) <= set(dir(tvm_cdmpp))
    for name in tvm_cdmpp.__all__:
        assert getattr(tvm_cdmpp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tvm_cdmpp.nonsense
