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
# XGBoost, which TVM imports, loads scikit-learn where it is; that sets variables of OpenMP's.
WATCH_ENVIRON = """
import os
def variables(): return {item for item in os.environ.items() if not item[0].startswith("KMP_")}
before = variables()
"""
CHECK_ENVIRON = "assert variables() == before, variables() ^ before\n"
# What a child process of TVM's inherits, as JSON.
PRINT_CHILD = f"""
import json, sys
from tvm.contrib import popen_pool
child = "import json, os; print(json.dumps({{n: os.environ.get(n, '') for n in {INHERITED}}}))"
popen_pool.subprocess.Popen([sys.executable, "-c", child]).wait()
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
    for name in ("relay", "contrib", *(["auto_scheduler"] if auto_scheduler else [])):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "contrib" / "popen_pool.py").write_text("import subprocess\n")
    (package / "libinfo.py").write_text(f'__version__ = "{version}"\n')
    (package / "__init__.py").write_text(f"from .libinfo import __version__\n{body}\n")
    return folder


# ---------------------------------------------------------------- the user's TVM


def test_own_tvm_wins_and_reaches_children(tmp_path: Path) -> None:
    own = make_tvm(tmp_path / "own", "0.18.0", auto_scheduler=True)
    code = (
        f"import sys; sys.path.insert(0, {str(own)!r})\n{WATCH_ENVIRON}{LOAD}"
        "assert load_tvm() is load_tvm()\n"
        "load_tvm().auto_scheduler, load_tvm().relay\n"
        "from tvm.contrib import popen_pool\n"
        "child = 'import tvm, tvm_cdmpp; print(tvm.__version__)'\n"
        "print(load_tvm().__version__, flush=True)\n"
        "popen_pool.subprocess.Popen([sys.executable, '-c', child]).wait()\n"
        + PRINT_CHILD
        + CHECK_ENVIRON
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
    assert 'pip install -e ".[tvm]"' in message


def test_no_tvm_at_all(tmp_path: Path) -> None:
    (tmp_path / "here" / "tvm" / "src").mkdir(parents=True)  # a clone's folder is not a package
    message = error_of(environ(tmp_path, str(tmp_path / "here")), "-S")
    assert "found no TVM at all" in message
    assert 'pip install -e ".[tvm]"' in message


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
        WATCH_ENVIRON
        + LOAD
        + "import sys\n"
        + "load_tvm()\n"
        + PRINT_CHILD
        # A child that loads TVM again adds nothing to what it inherited.
        + f"child = {LOAD + 'load_tvm()' + PRINT_CHILD!r}\n"
        + "assert popen_pool.subprocess.Popen([sys.executable, '-c', child]).wait() == 0\n"
        + "assert 'tilelang' not in sys.modules\n"
        + CHECK_ENVIRON
    )
    values = {"LD_LIBRARY_PATH": mine, "TVM_LIBRARY_PATH": mine}
    child, grandchild = python(code, environ(tmp_path, mine, **values)).splitlines()
    assert child == grandchild
    environment = json.loads(child)
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
def test_a_search_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    code = (
        WATCH_ENVIRON
        + "from tests.tiny_tasks import auto_scheduler, matmul\n"
        + "task, log = matmul(8, 8, 8), 'log.json'\n"
        + "callbacks = [auto_scheduler.RecordToFile(log)]\n"
        # TVM fixes how often a program runs by its first runs, and a busy machine is slow later.
        + "builder = auto_scheduler.LocalBuilder(timeout=60)\n"
        + "runner = auto_scheduler.LocalRunner(timeout=60, number=1, repeat=1, min_repeat_ms=0)\n"
        + "options = auto_scheduler.TuningOptions(\n"
        + "    2, builder=builder, runner=runner, measure_callbacks=callbacks, verbose=0\n"
        + ")\n"
        + "task.tune(options, auto_scheduler.SketchPolicy(task, verbose=0))\n"
        + "results = [result for _, result in auto_scheduler.RecordReader(log)]\n"
        + "print([(int(result.error_no), str(result.error_msg)) for result in results])\n"
        + CHECK_ENVIRON
    )
    assert python(code, environ(tmp_path), cwd=tmp_path).splitlines()[-1] == "[(0, ''), (0, '')]"
    # No pickles are left behind, which the next process would read.
    assert not list(tmp_path.glob(".pkl*"))


@needs_bundle
def test_the_working_folder_is_neither_read_nor_written(tmp_path: Path) -> None:
    pickles = tmp_path / ".pkl_memoize_py3"
    pickles.mkdir()
    # TVM would load it, which makes a folder.
    name = "topi.nn.winograd_matrices.winograd_transform_matrices.pkl"
    (pickles / name).write_bytes(b"cos\nmkdir\n(S'evil'\ntR.")
    code = (
        LOAD
        + "load_tvm()\n"
        + "from tvm.contrib.popen_pool import PopenWorker\n"
        + "def version():\n    import tvm.relay\n    return tvm.__version__\n"
        + "worker = PopenWorker()\n"
        + "worker.send(version)\n"
        + "assert worker.recv() == load_tvm().__version__\n"
        # Winograd's matrices are what is memoized.
        + "from tvm.topi.nn.winograd_util import winograd_transform_matrices as make\n"
        + "assert make(4, 3, 'float32') is not None"
    )
    python(code, environ(tmp_path), cwd=tmp_path)
    assert not (tmp_path / "evil").exists()


@needs_bundle
def test_plug_in_loads_nothing_that_only_commands_need(tmp_path: Path) -> None:
    code = (
        "import sys; from tvm_cdmpp import CDMPPModel\n"
        + "from tests.tiny_tasks import auto_scheduler, matmul\n"
        + "policy = auto_scheduler.SketchPolicy(matmul(8, 8, 8), CDMPPModel(), verbose=0)\n"
        + "assert len(policy.sample_initial_population())\n"
        + "unneeded = {'pyarrow', 'matplotlib', 'onnx', 'tvm_cdmpp.cli', 'tvm_cdmpp.data.store'}\n"
        + "print(sorted(unneeded & set(sys.modules)))\n"
    )
    assert python(code, environ(tmp_path), cwd=tmp_path) == "[]"


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
    code = "from tvm_cdmpp import describe_tvm; print(describe_tvm().libcuda, flush=True)"
    code += PRINT_CHILD
    env = environ(tmp_path / "cache", LD_LIBRARY_PATH=str(tmp_path))
    libcuda, environment = python(code, env).splitlines()
    assert libcuda == "driver"
    assert str(tmp_path / "cache") not in environment
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------- the driver's stub


STUB = "libcuda_stub.ensure_stub(runtime.cache_folder())"
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
    assert str(tmp_path / "file" / "tvm-cdmpp") in message
    assert "XDG_CACHE_HOME" in message


@pytest.mark.parametrize("given", [None, "1"])
def test_children_may_use_all_physical_cores(tmp_path: Path, given: str | None) -> None:
    code = (
        "from tvm_cdmpp.devices.host import read_host_cpu\n"
        + LOAD
        + "load_tvm()\n"
        + "from tvm.contrib.popen_pool import PopenWorker\n"
        + "def threads():\n    import tvm\n    return tvm.runtime.num_threads()\n"
        + "worker = PopenWorker()\n"
        + "worker.send(threads)\n"
        + f"assert worker.recv() == int({given!r} or read_host_cpu().physical_cores)"
    )
    env = environ(tmp_path)
    env.pop("TVM_NUM_THREADS", None)
    python(code, env if given is None else {**env, "TVM_NUM_THREADS": given})


SEEN_WHILE_TIMED = """
def seen():
    import os, threading
    import numpy as np, tvm
    found = []
    @tvm.register_func("note", override=True)
    def note(*arguments):
        others = (int(thread) for thread in os.listdir("/proc/self/task"))
        bound = [os.sched_getaffinity(t) for t in others if t != threading.get_native_id()]
        workers = set().union(*(cores for cores in bound if len(cores) == 1))
        found.append((sorted(os.sched_getaffinity(0)), sorted(workers)))
    x = tvm.te.placeholder((64,), name="x")
    y = tvm.te.compute((64,), lambda i: x[i] + 1.0, name="y")
    schedule = tvm.te.create_schedule(y.op)
    schedule[y].parallel(y.op.axis[0])
    built = tvm.build(schedule, [x, y], "llvm")
    arrays = [tvm.nd.array(np.zeros(64, "float32")) for _ in range(2)]
    timer = built.time_evaluator(built.entry_name, tvm.cpu(), number=1, repeat=1, f_preproc="note")
    timer(*arrays)
    return found[-1], sorted(os.sched_getaffinity(0))
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="threads are bound on Linux, given two cores",
)
def test_children_time_programs_on_a_core_that_no_worker_has(tmp_path: Path) -> None:
    code = (
        f"{LOAD}load_tvm()\n{SEEN_WHILE_TIMED}"
        "import os\n"
        "from tvm.contrib.popen_pool import PopenWorker\n"
        "worker = PopenWorker()\n"
        "worker.send(seen)\n"
        "(own, workers), after = worker.recv()\n"
        "assert len(own) == 1 and workers and own[0] not in workers, (own, workers)\n"
        "assert after == sorted(os.sched_getaffinity(0)), after"
    )
    python(code, environ(tmp_path, TVM_NUM_THREADS="2"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are bound on Linux")
@pytest.mark.parametrize(
    ("change", "threads"),
    [
        ('tvm.support.libinfo = lambda: {"USE_OPENMP": "gnu"}', "2"),
        ("tvm.get_global_func = lambda name, allow_missing: None", "2"),
        ("", "1"),
        ("", "2"),
    ],
    ids=["threads of its own", "an unknown TVM", "no workers", "no core is free"],
)
def test_a_thread_stays_where_it_may_be(tmp_path: Path, change: str, threads: str) -> None:
    code = (
        f"{LOAD}import os\ntvm = load_tvm()\n{change}\n"
        "from tvm_cdmpp.bridge import off_worker_cores\n"
        "given = {max(os.sched_getaffinity(0))}\n"
        "os.sched_setaffinity(0, given)  # TVM's own choice begins with the first core\n"
        "with off_worker_cores():\n    assert os.sched_getaffinity(0) == given\n"
        "assert os.sched_getaffinity(0) == given"
    )
    python(code, environ(tmp_path, TVM_NUM_THREADS=threads))


def test_a_program_s_own_process_may_use_all_physical_cores(tmp_path: Path) -> None:
    code = (
        "from tvm_cdmpp.devices.host import read_host_cpu\n"
        "from tvm_cdmpp.bridge.children import use_physical_cores\n"
        f"{LOAD}use_physical_cores()\n"
        "assert load_tvm().runtime.num_threads() == read_host_cpu().physical_cores"
    )
    env = environ(tmp_path)
    env.pop("TVM_NUM_THREADS", None)
    python(code, env)
