"""The devices that programs run on, and the vectors that describe them."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels, MeasuredProgram
    from tvm_cdmpp.devices.cuda import read_cuda_gpus
    from tvm_cdmpp.devices.detect import detect_cpu, detect_gpus, device_for, find_device
    from tvm_cdmpp.devices.hardware import Hardware
    from tvm_cdmpp.devices.host import HostCPU, read_host_cpu
    from tvm_cdmpp.devices.jsonform import dump_devices
    from tvm_cdmpp.devices.kept_calibrations import (
        calibration_file,
        keep_calibration,
        keep_levels,
        read_calibrations,
    )
    from tvm_cdmpp.devices.registry import (
        Registry,
        add_devices,
        built_in_devices,
        load_registry,
        read_device_file,
        remove_devices,
        user_device_file,
        without_calibrations,
    )
    from tvm_cdmpp.devices.spec import DEVICE_FIELDS, FIGURES, DeviceSpec, generic_gpu

__getattr__, __dir__ = offer(__name__)
