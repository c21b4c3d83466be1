"""The C++ compiler that links what TVM builds."""

import shutil

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import MissingDependencyError

tvm = load_tvm()


def check_compiler() -> None:
    """Raise `MissingDependencyError` without a C++ compiler, which links whatever TVM builds."""
    compiler = tvm.contrib.cc.get_cc()
    if compiler is None or shutil.which(compiler) is None:
        found = "none was found" if compiler is None else f"{compiler!r}, from CXX or CC, is none"
        raise MissingDependencyError(
            f"TVM needs a C++ compiler to link what it builds, and {found}. Install g++ (Debian: "
            "`apt install g++`; Fedora: `dnf install gcc-c++`)."
        )
