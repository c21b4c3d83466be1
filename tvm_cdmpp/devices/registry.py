"""Devices by name: the built-in ones of `registry.json`, and those of the user.

Names are compared without case, spaces, dashes and the words that vendors put around them, so
`NVIDIA GeForce RTX 3090` as a driver tells it is `rtx-3090`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

from tvm_cdmpp.devices.calibration import DeviceCalibration
from tvm_cdmpp.devices.jsonform import dump_devices, parse_devices
from tvm_cdmpp.devices.kept_calibrations import calibration_file, read_calibrations
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError
from tvm_cdmpp.files import config_folder, locked, write_atomically

_BUILT_IN = Path(__file__).with_name("registry.json")
_SIMILAR = 0.5  # less than usual: names are short
_AROUND_NAMES = re.compile(
    r"\((r|tm)\)|@.*|\d+-core|\d+th gen"
    r"|\b(nvidia|geforce|tesla|intel|amd|radeon|instinct|cpu|processor)\b"
)


@dataclass(frozen=True)
class Registry:
    """Devices that can be found by their names and aliases.

    Raises
    ------
    ConfigError
        Two devices have a name or an alias in common.
    """

    devices: tuple[DeviceSpec, ...]
    calibrations: Mapping[str, DeviceCalibration] = field(default_factory=dict)
    """What was measured on devices, by their names, of unknown ones as well."""

    def __post_init__(self) -> None:
        """Reject names that would be ambiguous."""
        owners: dict[str, int] = {}
        for number, device in enumerate(self.devices):
            for name in (device.name, *device.aliases):
                owner = owners.setdefault(_key(name), number)
                if owner != number:
                    raise ConfigError(_say_taken(name, self.devices[owner], device))

    def match(self, name: str) -> DeviceSpec | None:
        """Return the device that has this name; None where there is none."""
        wanted = _key(name)
        fitting = (d for d in self.devices if wanted in map(_key, (d.name, *d.aliases)))
        found = next(fitting, None) if wanted else None
        return found and self.calibrated(found)

    def calibrated(self, device: DeviceSpec) -> DeviceSpec:
        """Return a device with what was measured on it, if anything was.

        Raises
        ------
        ConfigError
            What is kept of it is damaged.
        """
        calibration = self.calibrations.get(device.name)
        return replace(device, calibration=calibration) if calibration else device

    def find(self, name: str) -> DeviceSpec:
        """Return the device that has this name.

        Raises
        ------
        UnknownDeviceError
            There is none; the message names similar ones.
        """
        device = self.match(name)
        if device is None:
            names = {_key(n): d.name for d in self.devices for n in (d.name, *d.aliases)}
            close = difflib.get_close_matches(_key(name), names, n=3, cutoff=_SIMILAR)
            similar = " or ".join(dict.fromkeys(names[key] for key in close))
            raise UnknownDeviceError(
                f"Expected the name of a known device; got '{name}'"
                + (f" (did you mean {similar}?)" if close else "")
                + ". `tvm-cdmpp device show` lists them, `tvm-cdmpp device add` adds one."
            )
        return device


_WITHOUT_CALIBRATIONS = ContextVar("without_calibrations", default=False)


@contextmanager
def without_calibrations() -> Iterator[None]:
    """Find devices without what was measured on them, as when that is to be replaced."""
    before = _WITHOUT_CALIBRATIONS.set(True)
    try:
        yield
    finally:
        _WITHOUT_CALIBRATIONS.reset(before)


def load_registry(user_file: Path | None = None) -> Registry:
    """Return the built-in devices and those of the user's file, with their calibrations.

    Parameters
    ----------
    user_file
        The user's file, which need not exist; `user_device_file()` by default. Calibrations are
        in the same folder.

    Raises
    ------
    ConfigError
        A file is damaged, or the user's names a device as a built-in one.
    """
    if user_file is None:
        try:
            user_file = user_device_file()
        except ConfigError:  # no home folder, so no file either
            return _joined(())
    file = user_file.with_name(calibration_file().name)
    calibrations = {} if _WITHOUT_CALIBRATIONS.get() else read_calibrations(file)
    return replace(_joined(read_user_devices(user_file)), calibrations=calibrations)


def user_device_file() -> Path:
    """Return where the user's own devices are kept; the file need not exist.

    Raises
    ------
    ConfigError
        This user has no home folder.
    """
    return config_folder() / "devices.json"


def read_device_file(file: Path) -> tuple[DeviceSpec, ...]:
    """Read a file of devices.

    Raises
    ------
    ConfigError
        The file cannot be read, or does not have the form of `jsonform`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"The device file {file} cannot be read: {error.strerror}.") from error
    return parse_devices(content, str(file))


def read_user_devices(file: Path) -> tuple[DeviceSpec, ...]:
    """Read the user's devices; none where there is no file."""
    return read_device_file(file) if file.exists() else ()


def add_devices(devices: Sequence[DeviceSpec], user_file: Path) -> tuple[str, ...]:
    """Put devices in the user's file, atomically; ones of the same name are replaced.

    Returns
    -------
    replaced
        Names of the devices that were in the file before.

    Raises
    ------
    ConfigError
        A name is that of another device, or says nothing but a vendor; the file is then unchanged.
    RecordError
        Another process changes the file.
    """
    for device in devices:
        for name in (device.name, *device.aliases):
            if not _key(name):
                raise ConfigError(
                    f"A name must say more than a vendor or 'cpu', which are not compared; got "
                    f"'{name}' of the device '{device.name}'. Add the model, as in epyc-7452."
                )
    with _changing(user_file):
        new = {device.name for device in devices}
        old = read_user_devices(user_file)
        users = (*(device for device in old if device.name not in new), *devices)
        _joined(users)
        write_atomically(user_file, dump_devices(users).encode())
    return tuple(device.name for device in old if device.name in new)


def remove_devices(names: Sequence[str], user_file: Path) -> tuple[str, ...]:
    """Take devices out of the user's file, atomically.

    Parameters
    ----------
    names
        Names or aliases, as `find_device` takes them.

    Returns
    -------
    removed
        Names of the devices that are no longer there.

    Raises
    ------
    ConfigError
        A device is a built-in one.
    UnknownDeviceError
        A device is not in the file; nothing is then removed.
    RecordError
        Another process changes the file.
    """
    with _changing(user_file):
        users = read_user_devices(user_file)
        gone = set()
        for name in names:
            fitting = {device.name for device in users if _is_called(device, name)}
            if not fitting and Registry(built_in_devices()).match(name) is not None:
                raise ConfigError(f"'{name}' is a built-in device, which cannot be removed.")
            if not fitting:
                known = ", ".join(device.name for device in users) or "none"
                raise UnknownDeviceError(
                    f"Expected a device of {user_file}, which has {known}; got '{name}'."
                )
            gone |= fitting
        rest = [device for device in users if device.name not in gone]
        write_atomically(user_file, dump_devices(rest).encode())
    return tuple(device.name for device in users if device.name in gone)


def _is_called(device: DeviceSpec, name: str) -> bool:
    """Tell whether a device has a name; just a vendor, as in old files, must be all of it."""
    key = _key(name)
    return device.name == name or (key != "" and key in map(_key, (device.name, *device.aliases)))


@contextmanager
def _changing(user_file: Path) -> Iterator[None]:
    user_file.parent.mkdir(parents=True, exist_ok=True)
    with locked(user_file.with_name(f".{user_file.name}.lock"), f"a change of {user_file}"):
        yield


def _say_taken(name: str, owner: DeviceSpec, device: DeviceSpec) -> str:
    if any(owner is built_in for built_in in built_in_devices()):
        named = (
            "a built-in device" if owner.name == name else f"a name of the built-in {owner.name}"
        )
        # The user's file may have had the name before the package did.
        return (
            f"'{name}' is {named}; give yours another name. One in your own file goes with "
            f"`tvm-cdmpp device remove {device.name}`."
        )
    if owner.name == device.name:
        return f"The device '{name}' is given twice; give each a name of its own."
    return (
        f"A name must be that of one device; '{name}' is one of both '{owner.name}' and "
        f"'{device.name}'. Choose another one."
    )


def _joined(users: Iterable[DeviceSpec]) -> Registry:
    return Registry((*built_in_devices(), *users))


@functools.cache
def built_in_devices() -> tuple[DeviceSpec, ...]:
    """Return the devices that come with the package."""
    return read_device_file(_BUILT_IN)


def _key(name: str) -> str:
    """Return what is compared of a name; empty where nothing but a vendor is named."""
    words = _AROUND_NAMES.sub(" ", name.casefold().replace("_", " "))
    return re.sub(r"[\s-]+", "", words)
