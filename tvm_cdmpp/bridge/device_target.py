"""The target to compile for when only the device is known, and none need be here."""

from __future__ import annotations

import re
from typing import Any

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import default_target, device_of
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.errors import CDMPPError

tvm = load_tvm()

_ARM = re.compile(r"cortex|graviton|apple|neoverse|ampere|altra|kunpeng|thunderx|snapdragon")
_X86_BY_VECTOR_BYTES = ((64, "skylake-avx512"), (32, "core-avx2"), (0, "nehalem"))
_GPU = "cuda -arch=sm_70"
"""What programs are generated for does not depend on the generation, as long as tensor units are
left out; what they take on the device does, and is left to the predictor."""


def why_unfit(device: DeviceSpec, target: Any) -> str:
    """Say that a target's programs run on another kind of device; empty where they do not.

    Parameters
    ----------
    device
        Where they are said to run.
    target
        Theirs.
    """
    is_for_cpu = str(target.kind.name) == "llvm"
    if is_for_cpu == (device.kind == "cpu"):
        return ""
    wanted = "CPUs" if is_for_cpu else "GPUs or accelerators"
    return f"'{device.name}' is a {device.kind}, and programs for {target} run on {wanted}"


def is_this_machine(device: DeviceSpec) -> bool:
    """Return whether a device is this machine's CPU, by its name."""
    try:
        return device_of(default_target()).name == device.name
    except CDMPPError:
        return False  # this machine is of an unknown kind


def remark_on_calibration(device: DeviceSpec) -> str | None:
    """Say that a device is this machine and was not calibrated; None where it is not, or was."""
    if device.calibration is not None or not is_this_machine(device):
        return None
    return (
        f"{device.name} is this machine and was not calibrated: `tvm-cdmpp device calibrate` "
        "measures in three minutes what all of its predictions are off by"
    )


def target_for(device: DeviceSpec) -> Any:
    """Return a target whose programs a device can run, for programs that are only predicted.

    Parameters
    ----------
    device
        This machine's own CPU gets its own target; other CPUs one of their architecture with their
        cores and vector width, GPUs and accelerators a common one of CUDA.
    """
    if device.kind != "cpu":
        return tvm.target.Target(_GPU)
    if is_this_machine(device):
        return default_target()
    cores = f"-num-cores={device.cores}"
    if _ARM.search(device.name):
        return tvm.target.Target(f"llvm -mtriple=aarch64-linux-gnu -mattr=+neon {cores}")
    mcpu = next(name for least, name in _X86_BY_VECTOR_BYTES if device.simd_bytes >= least)
    return tvm.target.Target(f"llvm -mtriple=x86_64-linux-gnu -mcpu={mcpu} {cores}")
