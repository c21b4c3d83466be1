import pytest

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.errors import ConfigError, NetworkError
from tvm_cdmpp.networks import check_compiles, check_libraries, load_network

tvm = load_tvm()


@pytest.mark.parametrize("libraries", ["mkl", "cblas", "mkl,cblas"])
def test_libraries_that_this_tvm_lacks(libraries: str) -> None:
    """Such a network compiles; it fails when it runs, after the search."""
    target = tvm.target.Target(f"llvm -libs={libraries}")
    named = libraries.replace(",", ", ")
    with pytest.raises(ConfigError, match=f"calls {named}, which this TVM was built without"):
        check_compiles(load_network("mlp"), target)


def test_libraries_that_this_tvm_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tvm._ffi.registry.list_global_func_names", lambda: ["tvm.contrib.mkl.matmul", "other"]
    )
    check_libraries(tvm.target.Target("llvm -libs=mkl"))
    check_libraries(tvm.target.Target("llvm"))


def test_a_network_is_compiled_once_before_it_is_searched() -> None:
    network = load_network("mlp")
    check_compiles(network, tvm.target.Target("llvm"))
    if tvm.runtime.enabled("vulkan"):
        pytest.skip("this TVM compiles for Vulkan")
    with pytest.raises(NetworkError, match="TVM cannot compile mlp for vulkan"):
        check_compiles(network, tvm.target.Target("vulkan"))
