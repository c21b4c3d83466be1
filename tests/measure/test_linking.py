"""Programs are linked as they are built, whatever builder was made last; others' are packed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_tasks import TARGET, auto_scheduler, matmul, tvm
from tvm_cdmpp.bridge import failed
from tvm_cdmpp.measure import MeasureOptions, MeasureSession
from tvm_cdmpp.measure.linking import can_link, link


@auto_scheduler.register_workload
def tiny_functions(n: int) -> list[Any]:
    """Call what the mathematical library has, and the compiler's library for half precision."""
    te = tvm.te
    a, half = te.placeholder((n,), name="A"), te.placeholder((n,), "float16", name="H")
    b = te.compute((n,), lambda i: te.erf(a[i]) + te.tan(half[i].astype("float32")), "B")
    return [a, half, b]


@pytest.mark.skipif(sys.platform != "linux", reason="TVM links as it does elsewhere")
def test_programs_run_as_linked_or_packed() -> None:
    task = auto_scheduler.SearchTask(func=tiny_functions, args=(64,), target=TARGET)
    programs = [auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state())]
    options = MeasureOptions(repeat=1)
    with MeasureSession():
        linking, runner = options.builder(), options.runner(on_cpu=True)
        packing = auto_scheduler.LocalBuilder()
        # A user's own, of which TVM knows the last one only.
        link_otherwise = tvm.contrib.cc.cross_compiler(
            tvm.contrib.cc.create_shared, output_format="dylib"
        )
        own = auto_scheduler.LocalBuilder(build_func=link_otherwise)
        order = ((linking, ".so"), (own, ".dylib"), (packing, ".tar"), (linking, ".so"))
        for builder, suffix in order:
            built = builder.build(programs, verbose=0)
            assert {Path(str(each.filename)).suffix for each in built} == {suffix}
            for result in runner.run(programs, built, verbose=0):
                assert not failed(result), result.error_msg


def called_by(library: Path) -> set[str]:
    """Return the names and versions of what a library calls of others."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines()}


@pytest.mark.skipif(sys.platform != "linux", reason="TVM links as it does elsewhere")
def test_the_same_functions_are_called_as_elsewhere(tmp_path: Path) -> None:
    functions = {"exp", "expf", "log", "logf", "erff", "tanh"}
    source, ours, others = (tmp_path / name for name in ("a.c", "ours.so", "others.so"))
    calls = " + ".join(f"{name}(x)" for name in sorted(functions))
    source.write_text(f"#include <math.h>\ndouble f(double x) {{ return {calls}; }}\n")
    link(str(ours), [str(source)])
    tvm.contrib.cc.create_shared(str(others), [str(source)])
    assert {name.split("@")[0] for name in called_by(ours)} == functions
    assert called_by(ours) <= called_by(others)


@pytest.mark.skipif(sys.platform != "linux", reason="TVM links as it does elsewhere")
def test_a_compiler_that_lacks_its_library_leaves_linking_to_tvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_link(tvm.contrib.cc.get_cc())
    compiler = tmp_path / "poor-c++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-lgcc*) exit 1;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    task = matmul(16, 16, 16)
    program = auto_scheduler.MeasureInput(task, task.compute_dag.get_init_state())
    options = MeasureOptions(repeat=1)
    with MeasureSession():
        (built,) = options.builder().build([program], verbose=0)
        (result,) = options.runner(on_cpu=True).run([program], [built], verbose=0)
    assert Path(str(built.filename)).suffix == ".tar"
    assert not failed(result), result.error_msg
