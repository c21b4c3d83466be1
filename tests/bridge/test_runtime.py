"""Which TVM is taken, what is said when none fits, and what child processes inherit.

The choice is made once per process, so each case runs in a process of its own. `-S` hides the
installed packages: no TVM but the one the test makes.
"""

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import tvm_cdmpp

ROOT = Path(tvm_cdmpp.__file__).parents[1]
BUNDLE = importlib.util.find_spec("tilelang")
INHERITED = ("PYTHONPATH", "LD_LIBRARY_PATH", "TVM_LIBRARY_PATH")

needs_bundle = pytest.mark.skipif(BUNDLE is None, reason="the bundled TVM is not installed")

LOAD = "from tvm_cdmpp.bridge.runtime import load_tvm\n"
CATCH = """
from tvm_cdmpp.errors import MissingDependencyError
from tvm_cdmpp.bridge import libcuda_stub, runtime
try:
    {call}
except MissingDependencyError as error:
    print(error)
else:
    print("no error")
"""
PRINT_ENVIRON = f"""
import json, os
print(json.dumps({{name: os.environ.get(name, "") for name in {INHERITED}}}))
"""


def environ(cache: Path, path: str = "", **values: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in INHERITED}
    python_path = os.pathsep.join(filter(None, [path, str(ROOT)]))
    return {**kept, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": python_path, **values}


def python(code: str, env: Mapping[str, str], *options: str, cwd: Path | None = None) -> str:
    command = [sys.executable, *options, "-c", code]
    run = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def error_of(env: Mapping[str, str], *options: str, call: str = "runtime.load_tvm()") -> str:
    return python(CATCH.format(call=call), env, *options)


def make_tvm(folder: Path, version: str, *, auto_scheduler: bool, body: str = "") -> Path:
    package = folder / "tvm"
    for name in ("relay", *(["auto_scheduler"] if auto_scheduler else [])):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "libinfo.py").write_text(f'__version__ = "{version}"\n')
    (package / "__init__.py").write_text(f"from .libinfo import __version__\n{body}\n")
    return folder


# ---------------------------------------------------------------- the user's TVM


def test_own_tvm_wins_and_reaches_children(tmp_path: Path) -> None:
    own = make_tvm(tmp_path / "own", "0.18.0", auto_scheduler=True)
    code = (
        f"import sys; sys.path.insert(0, {str(own)!r})\n{LOAD}"
        "import subprocess\n"
        "assert load_tvm() is load_tvm()\n"
        "load_tvm().auto_scheduler, load_tvm().relay\n"
        "child = 'import tvm, tvm_cdmpp; print(tvm.__version__)'\n"
        "print(load_tvm().__version__, flush=True)\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n" + PRINT_ENVIRON
    )
    *versions, environment = python(code, environ(tmp_path), cwd=tmp_path).splitlines()
    assert versions == ["0.18.0", "0.18.0"]
    assert json.loads(environment) == {
        "PYTHONPATH": f"{own}{os.pathsep}{ROOT}",
        "LD_LIBRARY_PATH": "",
        "TVM_LIBRARY_PATH": "",
    }


def test_own_tvm_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    reason = "libtinfo.so.6: cannot open shared object file"
    own = make_tvm(tmp_path, "0.18.0", auto_scheduler=True, body=f"raise OSError({reason!r})")
    message = error_of(environ(tmp_path, str(own)))
    assert reason in message
    assert str(own / "tvm") in message


def test_old_tvm_is_used_with_a_warning(tmp_path: Path) -> None:
    own = make_tvm(tmp_path, "0.11.1", auto_scheduler=True)
    code = "import logging, sys; logging.basicConfig(stream=sys.stdout)\n" + LOAD + "load_tvm()"
    assert "0.11.1 is older than 0.12" in python(code, environ(tmp_path, str(own)))


def test_too_new_tvm_is_named(tmp_path: Path) -> None:
    own = make_tvm(tmp_path, "0.20.0", auto_scheduler=False)
    message = error_of(environ(tmp_path, str(own)), "-S")
    assert f"found TVM 0.20.0 in {own / 'tvm'}" in message
    assert 'pip install "tvm-cdmpp[tvm]"' in message


def test_no_tvm_at_all(tmp_path: Path) -> None:
    (tmp_path / "here" / "tvm" / "src").mkdir(parents=True)  # a clone's folder is not a package
    message = error_of(environ(tmp_path, str(tmp_path / "here")), "-S")
    assert "found no TVM at all" in message
    assert 'pip install "tvm-cdmpp[tvm]"' in message


def test_bundling_wheel_without_tvm_is_named(tmp_path: Path) -> None:
    (tmp_path / "tilelang").mkdir()
    (tmp_path / "tilelang" / "__init__.py").touch()
    message = error_of(environ(tmp_path, str(tmp_path)), "-S")
    assert f"only tilelang of unknown version in {tmp_path / 'tilelang'}" in message
    assert "tilelang==0.1.0" in message


# ---------------------------------------------------------------- the bundled TVM


@needs_bundle
def test_bundled_tvm_and_what_children_inherit(tmp_path: Path) -> None:
    mine = str(tmp_path / "mine")
    code = (
        LOAD
        + "import subprocess, sys\n"
        + "load_tvm()\n"
        # A child that loads TVM again adds nothing to what it inherited.
        + f"child = {LOAD + 'load_tvm()' + PRINT_ENVIRON!r}\n"
        + "subprocess.run([sys.executable, '-c', child], check=True)\n"
        + "subprocess.run([sys.executable, '-c', 'import tvm.auto_scheduler'], check=True)\n"
        + "assert 'tilelang' not in sys.modules\n"
        + PRINT_ENVIRON
    )
    values = {"LD_LIBRARY_PATH": mine, "TVM_LIBRARY_PATH": mine}
    child, parent = python(code, environ(tmp_path, mine, **values)).splitlines()
    assert child == parent
    environment = json.loads(parent)
    assert BUNDLE is not None
    assert BUNDLE.origin is not None
    bundle = Path(BUNDLE.origin).resolve().parent
    assert environment["PYTHONPATH"].split(os.pathsep) == [
        str(bundle / "3rdparty" / "tvm" / "python"),
        mine,
        str(ROOT),
    ]
    assert environment["TVM_LIBRARY_PATH"] == str(bundle / "lib")
    folders = environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert mine in folders
    assert len(folders) == len(set(folders))


@needs_bundle
def test_bundled_tvm_stands_in_for_a_too_new_one(tmp_path: Path) -> None:
    own = make_tvm(tmp_path, "0.20.0", auto_scheduler=False)
    code = (
        "import logging, sys; logging.basicConfig(stream=sys.stdout)\n"
        "from tvm_cdmpp import describe_tvm\n"
        "info = describe_tvm()\n"
        "print(info.source, info.version, info.llvm_major, info.cuda_enabled)\n"
    )
    warning, result = python(code, environ(tmp_path, str(own))).splitlines()
    assert f"The TVM 0.20.0 in {own / 'tvm'} has no auto_scheduler" in warning
    assert result == "bundled 0.17.dev0 10 True"


@needs_bundle
def test_too_new_tvm_already_imported_cannot_be_replaced(tmp_path: Path) -> None:
    own = make_tvm(tmp_path, "0.20.0", auto_scheduler=False)
    message = error_of(environ(tmp_path, str(own)), call="import tvm; runtime.load_tvm()")
    assert "already imported" in message
    assert "before `import tvm`" in message


@needs_bundle
def test_missing_cuda_runtime_is_named(tmp_path: Path) -> None:
    assert BUNDLE is not None
    assert BUNDLE.origin is not None
    (tmp_path / "tilelang").symlink_to(Path(BUNDLE.origin).parent)
    call = "runtime._CUDA_LIBRARIES['libcudart.so.none'] = ('no/lib', 'the-cuda-wheel')"
    message = error_of(
        environ(tmp_path, str(tmp_path)),
        "-S",
        call=f"runtime._CUDA_LIBRARIES.clear(); {call}; runtime.load_tvm()",
    )
    assert "libcudart.so.none: cannot open shared object file" in message
    assert "pip install the-cuda-wheel" in message


@needs_bundle
def test_real_driver_wins_over_the_stub(tmp_path: Path) -> None:
    # Stands for a real driver: the functions of the stub, and the one every driver has.
    code = "from tvm_cdmpp.bridge import libcuda_stub as r; print(r._STUB_SOURCE + 'STUB(cuInit)')"
    source = tmp_path / "driver.c"
    source.write_text(python(code, environ(tmp_path)))
    driver = tmp_path / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler(), *flags, "-o", str(driver), str(source)], check=True)
    code = "from tvm_cdmpp import describe_tvm; print(describe_tvm().libcuda)" + PRINT_ENVIRON
    env = environ(tmp_path / "cache", LD_LIBRARY_PATH=str(tmp_path))
    libcuda, environment = python(code, env).splitlines()
    assert libcuda == "driver"
    assert str(tmp_path / "cache") not in environment
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------- the driver's stub


STUB = "libcuda_stub.ensure_stub(runtime._cache_folder())"
LOAD_STUB = (
    "import ctypes; from tvm_cdmpp.bridge import libcuda_stub, runtime\n"
    f"stub = {STUB}; print(stub); ctypes.CDLL(str(stub)).cuLaunchKernel\n"
)


def compiler() -> str:
    found = shutil.which("cc") or shutil.which("g++")
    assert found is not None, "the tests need a C compiler, as the package does"
    return found


def make_compiler(folder: Path, name: str, body: str) -> Path:
    folder.mkdir()
    script = folder / name
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


def test_stub_is_built_once_by_racing_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOAD_STUB]
    env = environ(tmp_path)
    racers = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = {racer.communicate(timeout=120)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(outputs) == 1
    stub = Path(outputs.pop().decode().strip())
    assert list(stub.parent.iterdir()) == [stub]  # no half-built files stay behind
    assert tmp_path in stub.parents
    # Once built, no compiler is asked again.
    assert python(LOAD_STUB, {**env, "PATH": str(tmp_path)}) == str(stub)


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_stub_is_rebuilt(tmp_path: Path, damage: str) -> None:
    env = environ(tmp_path)
    stub = Path(python(LOAD_STUB, env))
    whole = stub.read_bytes()
    stub.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b"x" * 9000}[damage])
    python(LOAD_STUB, env)
    assert len(stub.read_bytes()) == len(whole)


def test_gpp_alone_is_enough(tmp_path: Path) -> None:
    gpp = shutil.which("g++")
    assert gpp is not None
    only = make_compiler(tmp_path / "bin", "g++", f'PATH={os.environ["PATH"]} exec {gpp} "$@"')
    python(LOAD_STUB, environ(tmp_path, PATH=str(only)))


def test_missing_compiler_is_named(tmp_path: Path) -> None:
    message = error_of(environ(tmp_path, PATH=str(tmp_path)), call=STUB)
    assert "no C compiler" in message
    assert "Install g++" in message


def test_failing_compiler_is_quoted(tmp_path: Path) -> None:
    broken = make_compiler(tmp_path / "bin", "cc", "echo cannot find cc1 >&2; exit 1")
    message = error_of(environ(tmp_path, PATH=str(broken)), call=STUB)
    assert f"{broken / 'cc'} failed" in message
    assert "cannot find cc1" in message


def test_unusable_cache_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = error_of(environ(tmp_path / "file"), call=STUB)
    assert str(tmp_path / "file" / "tvm_cdmpp") in message
    assert "XDG_CACHE_HOME" in message


def test_programs_may_use_all_physical_cores() -> None:
    code = (
        "from tvm_cdmpp.devices.host import read_host_cpu\n"
        "from tvm_cdmpp.bridge.runtime import load_tvm\n"
        "assert load_tvm().runtime.num_threads() == read_host_cpu().physical_cores"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
