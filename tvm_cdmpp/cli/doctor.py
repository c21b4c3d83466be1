"""`tvm-cdmpp doctor`: what this machine offers for tuning, and whether a small search works.

Every item is looked at on its own, so that one missing part does not hide the others; each that
is not in order says what to do. Nothing is changed, except that TVM's driver stub may be built.
"""

import argparse
import dataclasses
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tvm_cdmpp.errors import CDMPPError, MissingDependencyError, install_command

Status = Literal["ok", "note", "fail"]

_SHOWN_CPU_FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "amx_tile", "asimd", "sve",
)  # fmt: skip
_COMPILER_ADVICE = (
    "TVM links every program with it. Install g++ (Debian: `apt install g++`; Fedora: `dnf install "
    "gcc-c++`), and see that CXX and CC, if set, name a compiler."
)
_COMMAND_TIMEOUT_S = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    """`fail` keeps tuning from working, `note` does not."""
    found: str
    advice: str = ""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="show what was found on this machine and test a small search",
        description="Show what was found on this machine, then run a small search end to end.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything, print the report; 0 if tuning works here, else 1."""
    checks = [item for check in _CHECKS for item in check()]
    if any(item.status == "fail" for item in checks):
        checks.append(Check("self-test", "fail", "not run", "Repair what failed above first."))
    else:
        checks.append(_check_selftest())
    works = all(item.status != "fail" for item in checks)
    if args.json:
        report = {"works": works, "checks": [dataclasses.asdict(item) for item in checks]}
        print(json.dumps(report, indent=2))
    else:
        _print_table(checks)
    return 0 if works else 1


# ---------------------------------------------------------------- the checks


def _check_python() -> list[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    advice = "" if supported else "The bundled TVM comes for Python 3.10 to 3.12 only."
    return [Check("Python", "ok" if supported else "note", found, advice)]


def _check_tvm() -> list[Check]:
    from tvm_cdmpp.bridge import describe_tvm

    try:
        info = describe_tvm()
    except MissingDependencyError as error:
        unusable = Check("TVM", "fail", "none that works", str(error))
        return [unusable, _check_compiler(shutil.which("g++"))]
    checks = [Check("TVM", "ok", f"{info.version}, {info.source}, in {info.path}")]
    if info.llvm_major is None:
        advice = "Use a TVM that was built with LLVM, or the bundled one."
        checks.append(Check("LLVM in TVM", "fail", "none", advice))
    else:
        checks.append(Check("LLVM in TVM", "ok", str(info.llvm_major)))
    code = "this TVM generates CUDA code" if info.cuda_enabled else "not in this TVM"
    driver = {"driver": "driver found", "stub": "no driver (a stub stands in)", "none": "no driver"}
    cuda = Check("CUDA", "ok", f"{code}; {driver[info.libcuda]}")
    return [*checks, _check_compiler(info.linker), cuda]


def _check_gpu() -> list[Check]:
    if shutil.which("nvidia-smi") is None:
        advice = (
            "None is needed for CPUs. `--target cuda` needs one here, or a device that `data "
            "collect --rpc` reaches."
        )
        return [Check("GPU", "note", "none found", advice)]
    names = _first_lines(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    if names is None:
        return [Check("GPU", "note", "nvidia-smi fails", "Repair the driver to tune for CUDA.")]
    return [Check("GPU", "ok", "; ".join(names))]


def _check_compiler(linker: str | None) -> Check:
    path = None if linker is None else shutil.which(linker)
    version = None if path is None else _first_lines([path, "--version"])
    if not version:
        found = "none" if linker is None else f"{linker}, which does not run"
        return Check("C++ compiler", "fail", found, _COMPILER_ADVICE)
    return Check("C++ compiler", "ok", f"{version[0]} ({path})")


def _check_cpu() -> list[Check]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            model = value
        elif key in ("flags", "Features"):
            flags.update(value.split())
    features = " ".join(name for name in _SHOWN_CPU_FEATURES if name in flags)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Check("CPU", "ok", model),
        Check("CPU features", "ok", features or "none of interest"),
        Check("CPU cores", "ok", f"{usable} usable of {os.cpu_count()}"),
    ]


def _check_packages() -> list[Check]:
    xgboost_advice = (
        f"{install_command('xgboost')}; only the baselines need it (the models xgb, xgb-warm "
        "and xgb-adaptive)."
    )
    return [
        _check_package("torch", "fail", "`pip install torch`"),
        _check_package("xgboost", "note", xgboost_advice),
        _check_package(
            "optuna", "note", '`pip install "tvm-cdmpp[autotune]"`; only `autotune` needs it.'
        ),
    ]


def _check_package(name: str, if_missing: Status, advice: str) -> Check:
    try:
        return Check(name, "ok", str(importlib.import_module(name).__version__))
    except (ImportError, OSError) as error:
        return Check(name, if_missing, f"{type(error).__name__}: {error}", advice)


def _check_selftest() -> Check:
    try:
        from tvm_cdmpp.search import CDMPPModel, run_selftest

        report = run_selftest(CDMPPModel(seed=0))
    except (CDMPPError, ImportError, OSError, RuntimeError) as error:
        return Check("self-test", "fail", f"{type(error).__name__}", str(error))
    return Check(
        "self-test",
        "ok",
        f"{report.num_states} programs scored, {report.num_measured} measured on "
        f"{report.target}, best {report.best_latency_s * 1e6:.0f} us, in {report.duration_s:.0f} s",
    )


_CHECKS: Sequence[Callable[[], list[Check]]] = (
    _check_python,
    _check_tvm,
    _check_gpu,
    _check_cpu,
    _check_packages,
)


# ---------------------------------------------------------------- helpers


def _first_lines(command: list[str]) -> list[str] | None:
    """Lines that a command prints; None if it fails."""
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip().splitlines()


def _print_table(checks: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tvm_cdmpp.cli.show import print_whole, stdout_console

    styles = {"ok": "green", "note": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a long path is not cut
    for item in checks:
        # Text, not markup: paths and messages may hold square brackets.
        table.add_row(Text(item.status, styles[item.status]), Text(item.name), Text(item.found))
        if item.advice:
            table.add_row("", "", Text(item.advice, styles[item.status]))
    print_whole(stdout_console(), table, fold=True)
