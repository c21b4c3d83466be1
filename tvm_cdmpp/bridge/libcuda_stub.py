"""A stand-in for the CUDA driver, whose functions all answer "no device".

The bundled TVM is linked against the driver library; where there is none, this one satisfies the
loader. It is compiled once, into the user's cache folder, and replaced as a whole: processes that
need it at the same time each build one, and the last wins, so nobody waits for a lock.
"""

import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

from tvm_cdmpp.errors import MissingDependencyError

DRIVER = "libcuda.so.1"
"""SONAME of the CUDA driver."""

_COMPILERS = ("cc", "gcc", "g++", "clang", "c++")
_COMPILE_TIMEOUT_S = 120
# Every driver function the bundled library imports; 100 is CUDA_ERROR_NO_DEVICE. Valid as C and as
# C++, because g++ may be the only compiler.
_STUB_SOURCE = """\
#ifdef __cplusplus
#define STUB(name) extern "C" int name(void) { return 100; }
#else
#define STUB(name) int name(void) { return 100; }
#endif
STUB(cuDeviceGetName) STUB(cuFuncSetAttribute) STUB(cuGetErrorName)
STUB(cuLaunchKernel) STUB(cuMemsetD32_v2) STUB(cuModuleGetFunction)
STUB(cuModuleGetGlobal_v2) STUB(cuModuleLoadData) STUB(cuModuleUnload)
"""


def ensure_stub(cache: Path) -> Path:
    """Return the compiled stub; build it when the cache has none, or a damaged one.

    Parameters
    ----------
    cache
        This package's cache folder; made if missing. Processes may share it.

    Returns
    -------
    stub
        The library, in a folder of its own.

    Raises
    ------
    MissingDependencyError
        No compiler, one that fails, or a cache folder that cannot be written.
    """
    # The source's checksum names the folder, so that a changed source is built anew.
    checksum = zlib.crc32(_STUB_SOURCE.encode())
    stub = cache / f"libcuda-stub-{checksum:08x}" / DRIVER
    if not _is_whole_library(stub):
        try:
            stub.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=stub.parent, prefix="build-") as build:
                built = _compile_stub(Path(build))
                # Atomic: another process sees the old file or the new one, both complete.
                built.replace(stub)
        except OSError as error:
            raise MissingDependencyError(
                f"There is no CUDA driver here, so TVM needs a stub of it in {stub.parent}, which "
                f"cannot be written: {error}. Make that folder writable, or point XDG_CACHE_HOME "
                "to one that is."
            ) from error
    return stub


def _compile_stub(folder: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise MissingDependencyError(
            f"There is no CUDA driver here, so TVM needs a stub of it, and no C compiler to build "
            f"it with (looked for {', '.join(_COMPILERS)}). Install g++ (Debian: `apt install "
            "g++`; Fedora: `dnf install gcc-c++`); measuring programs needs it too."
        )
    source, library = folder / "stub.c", folder / DRIVER
    source.write_text(_STUB_SOURCE, encoding="utf-8")
    # No C library: the result loads wherever the cache folder is shared to.
    flags = ["-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{DRIVER}"]
    command = [compiler, *flags, "-o", str(library), str(source)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_COMPILE_TIMEOUT_S
        )
        failure = None if run.returncode == 0 else run.stderr.strip() or f"exit {run.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"no answer in {_COMPILE_TIMEOUT_S} s"
    if failure is not None:
        raise MissingDependencyError(
            f"{compiler} failed to build the CUDA driver stub that TVM needs: {failure}. Repair "
            "the compiler; measuring programs needs it too."
        )
    return library


def _is_whole_library(file: Path) -> bool:
    """Check that a 64-bit ELF file is complete; loading a cut one could kill the process."""
    try:
        content = file.read_bytes()
        magic, sections_at, size_bytes, number = struct.unpack_from("<4s36xQ10xHH", content)
    except (OSError, struct.error):
        return False
    # The section table is the last thing in the file.
    return bool(magic == b"\x7fELF" and 0 < sections_at + size_bytes * number <= len(content))
