"""Find a TVM with `auto_scheduler`, make it importable here and in child processes.

The user's own TVM (0.12 to 0.19) wins. Without one, the complete TVM inside the wheel named by
`BUNDLED_REQUIREMENT` is used; that wheel's own package is never imported. Choices:

- The bundled library is linked against the CUDA runtime, whose wheels are loaded first with
  `RTLD_GLOBAL` (the loader then matches them by SONAME), and against the CUDA driver. Where there
  is no driver, a stub whose functions all answer "no device" takes its place. It is compiled once
  and cached; a real driver always wins over it.
- TVM builds and measures programs in child processes that import `tvm` afresh. What they need is
  put into their environment as they start; that of this process stays as it is.
- A TVM that is found but does not load is an error, not a reason to take another one in silence.
"""

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from tvm_cdmpp.bridge.child import memoize_in_memory
from tvm_cdmpp.bridge.children import Children
from tvm_cdmpp.bridge.libcuda_stub import DRIVER, ensure_stub
from tvm_cdmpp.errors import ConfigError, MissingDependencyError, install_command
from tvm_cdmpp.files import cache_folder

_logger = logging.getLogger(__name__)

BUNDLED_REQUIREMENT = "tilelang==0.1.0"
_BUNDLE, _BUNDLE_VERSION = BUNDLED_REQUIREMENT.split("==")
_BUNDLE_FOLDER = Path("3rdparty", "tvm", "python")

_FIRST_SUPPORTED = (0, 12)
_HINT = (
    f"Install the bundled TVM with {install_command('tvm')} (Linux x86-64, Python 3.10 to "
    "3.12), or make your own build of TVM 0.12 to 0.19 importable."
)

_CUDA_LIBRARIES = {  # SONAME: (folder below the `nvidia` package, requirement that brings it)
    "libcudart.so.12": ("cuda_runtime/lib", "nvidia-cuda-runtime-cu12"),
    "libnvrtc.so.12": ("cuda_nvrtc/lib", "nvidia-cuda-nvrtc-cu12"),
}

Source = Literal["user", "bundled"]
LibCuda = Literal["driver", "stub", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TVMInfo:
    """What is known about the loaded TVM."""

    source: Source
    """Whose it is: the user's own, or the one from the bundled wheel."""
    version: str
    """`tvm.__version__`."""
    path: Path
    """Folder of the Python package."""
    library: Path | None
    """The loaded shared library, where the system tells."""
    llvm_major: int | None
    """Major version of LLVM inside TVM; None without LLVM."""
    cuda_enabled: bool
    """Whether this TVM can generate and run CUDA programs, given a driver."""
    linker: str | None
    """C++ compiler that links built programs, as TVM calls it; None if it finds none."""
    libcuda: LibCuda
    """What answers for the CUDA driver in this process."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A TVM on disk: its package folder, and whose it is."""

    package: Path
    source: Source


def load_tvm() -> ModuleType:
    """Import TVM with its `auto_scheduler` and `relay`, and prepare its child processes.

    The first call decides; later calls return the same module.

    Returns
    -------
    tvm
        The module, with `tvm.auto_scheduler` and `tvm.relay` imported.

    Raises
    ------
    MissingDependencyError
        No TVM, one without `auto_scheduler` (0.20 and later), or one that does not load.
    """
    return _load()[0]


@functools.cache
def describe_tvm() -> TVMInfo:
    """Load TVM and tell which one it is and what it can do.

    Raises
    ------
    MissingDependencyError
        As `load_tvm`.
    """
    tvm, found = _load()
    linker = importlib.import_module("tvm.contrib.cc").get_cc()
    llvm_major = tvm.target.codegen.llvm_version_major(allow_none=True)
    return TVMInfo(
        source=found.source,
        version=str(tvm.__version__),
        path=found.package,
        library=_loaded_library("libtvm"),
        llvm_major=None if llvm_major is None else int(llvm_major),
        cuda_enabled=bool(tvm.runtime.enabled("cuda")),
        linker=None if linker is None else str(linker),
        libcuda=_libcuda_in_use(),
    )


@functools.cache
def _load() -> tuple[ModuleType, _Found]:
    found = _find_tvm()
    prepare = _prepare_bundled if found.source == "bundled" else _prepare_user
    children = prepare(found.package)
    memoize_in_memory()
    try:
        with children.settings_here():
            tvm = importlib.import_module("tvm")
            importlib.import_module("tvm.auto_scheduler")
            importlib.import_module("tvm.relay")
        # All of TVM's child processes are started there: those of builders, runners and RPC.
        children.equip(importlib.import_module("tvm.contrib.popen_pool"))
    except (ImportError, OSError, RuntimeError, AttributeError, TypeError) as error:
        raise MissingDependencyError(
            f"TVM was found in {found.package} but does not load: {error}. Install what it misses "
            f"(a library such as libtinfo.so.6 or libz.so.1 comes from the system's package "
            f"manager), or remove this TVM. {_HINT}"
        ) from error
    _warn_if_old(str(tvm.__version__))
    _logger.debug("TVM %s (%s) from %s", tvm.__version__, found.source, found.package)
    return tvm, found


# ---------------------------------------------------------------- which TVM


def _find_tvm() -> _Found:
    """Choose between the user's TVM and the bundled one, importing neither."""
    bundle = _package_folder(_BUNDLE)
    package = _package_folder("tvm")
    imported = "tvm" in sys.modules
    if package is not None and _has_auto_scheduler(package):
        from_bundle = bundle is not None and package.is_relative_to(bundle)
        return _Found(package, "bundled" if from_bundle else "user")
    bundled = None if bundle is None else bundle / _BUNDLE_FOLDER / "tvm"
    if bundled is not None and _has_auto_scheduler(bundled) and not imported:
        if package is not None:
            _logger.warning(
                "The TVM %s in %s has no auto_scheduler; using the bundled one in %s instead.",
                _version_on_disk(package),
                package,
                bundled,
            )
        return _Found(bundled, "bundled")
    raise MissingDependencyError(_explain_missing(package, bundle, imported=imported))


def _explain_missing(package: Path | None, bundle: Path | None, *, imported: bool) -> str:
    expected = "CDMPP needs a TVM with auto_scheduler (0.12 to 0.19)"
    if package is not None and imported and bundle is not None:
        return (
            f"{expected}; TVM {_version_on_disk(package)} from {package}, which has none, is "
            "already imported. Call tvm_cdmpp.load_tvm() before `import tvm`, or use an "
            f"environment without that TVM. {_HINT}"
        )
    if package is not None:
        return (
            f"{expected}; found TVM {_version_on_disk(package)} in {package}, which has none "
            f"(TVM dropped it in 0.20). {_HINT}"
        )
    if bundle is not None:
        return (
            f"{expected}; found none, only {_BUNDLE} {_distribution_version(_BUNDLE)} in {bundle}, "
            f"which does not carry one ({BUNDLED_REQUIREMENT} does). {_HINT}"
        )
    return f"{expected}; found no TVM at all. {_HINT}"


def _package_folder(name: str) -> Path | None:
    """Folder of a regular package, imported or only importable; None for anything else."""
    if name in sys.modules:
        paths = list(getattr(sys.modules[name], "__path__", []))
        return Path(paths[0]).resolve() if paths else None
    spec = importlib.util.find_spec(name)
    # A namespace package has no origin: a plain folder called `tvm` on the path is not TVM.
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    return Path(spec.origin).resolve().parent


def _has_auto_scheduler(package: Path) -> bool:
    return (package / "auto_scheduler" / "__init__.py").is_file()


def _version_on_disk(package: Path) -> str:
    """Version of a TVM that must not be imported, as far as its files tell."""
    for name in ("_ffi/libinfo.py", "libinfo.py", "_version.py"):
        file = package / name
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        match = re.search(r"""^(?:__version__|version)\s*=[^"'\n]*["']([^"']+)["']""", text, re.M)
        if match:
            return match[1]
    return _distribution_version("apache-tvm")


def _distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _warn_if_old(version: str) -> None:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < _FIRST_SUPPORTED:
        _logger.warning("TVM %s is older than 0.12, the oldest that is supported.", version)


# ---------------------------------------------------------------- making it loadable


def _prepare_user(package: Path) -> Children:
    """Let child processes find the TVM that this process found, however it did."""
    installed = {Path(folder).resolve() for folder in _site_folders()}
    # Children see the site folders anyway; on PYTHONPATH they would come before the standard
    # library and could shadow it.
    return Children(python_path=() if package.parent in installed else (package.parent,))


def _prepare_bundled(package: Path) -> Children:
    """Load what the bundled library is linked against; tell children where all of it is."""
    libraries = package.parents[3] / "lib"
    if not (libraries / "libtvm.so").is_file():
        raise MissingDependencyError(
            f"The bundled TVM needs {libraries / 'libtvm.so'}, which is missing. Reinstall it: "
            f"`pip install --force-reinstall --no-deps {BUNDLED_REQUIREMENT}`."
        )
    folders = _preload_cuda_runtime()
    stub = _preload_driver()
    if str(package.parent) not in sys.path:
        # In front: a TVM without auto_scheduler may come later on the path.
        sys.path.insert(0, str(package.parent))
    return Children(
        python_path=(package.parent,),
        library_path=tuple(folders),
        stub=stub,
        # TVM reads this variable as one folder; the libraries of another build do not fit this one.
        settings={"TVM_LIBRARY_PATH": str(libraries)},
    )


def _preload_cuda_runtime() -> list[Path]:
    """Load the CUDA runtime libraries for all to see; return the folders they came from."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]
    folders = []
    for soname, (subfolder, requirement) in _CUDA_LIBRARIES.items():
        files = [root / subfolder / soname for root in roots]
        file = next((f for f in files if f.is_file()), None)
        try:
            ctypes.CDLL(soname if file is None else str(file), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise MissingDependencyError(
                f"The bundled TVM is linked against {soname}, which does not load: {error}. It "
                f"comes with `pip install {requirement}`; no GPU is needed."
            ) from error
        if file is not None:
            folders.append(file.parent)
    return folders


def _preload_driver() -> Path | None:
    """Load the CUDA driver or, where there is none, the stub; return the stub's folder if used."""
    library = _open_driver()
    if library is not None and _is_real_driver(library):
        return None
    try:
        stub = ensure_stub(cache_folder())
    except ConfigError as error:  # no home folder
        raise MissingDependencyError(f"No place for a stub of the CUDA driver. {error}") from error
    ctypes.CDLL(str(stub), mode=ctypes.RTLD_GLOBAL)
    return stub.parent


def _open_driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(DRIVER, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None


def _is_real_driver(library: ctypes.CDLL) -> bool:
    """Tell the driver from a stub, which a parent process may have put on the library path."""
    return hasattr(library, "cuInit")


def _libcuda_in_use() -> LibCuda:
    library = _open_driver()
    if library is not None:
        return "driver" if _is_real_driver(library) else "stub"
    return "none"


# ---------------------------------------------------------------- this process


def _site_folders() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _loaded_library(prefix: str) -> Path | None:
    """Find a library of this process by the start of its file name (Linux only)."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return None
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name.startswith(prefix):
            return Path(fields[5])
    return None
