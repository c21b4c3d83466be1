"""Devices by name: the built-in ones of `registry.json`, and those of the user.

Names are compared without case, spaces, dashes and the words that vendors put around them, so
`NVIDIA GeForce RTX 3090` as a driver tells it is `rtx-3090`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_cdmpp.devices.jsonform import dump_devices, parse_devices
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import ConfigError, UnknownDeviceError
from tvm_cdmpp.files import write_atomically

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

    def __post_init__(self) -> None:
        """Reject names that would be ambiguous."""
        owners: dict[str, int] = {}
        for number, device in enumerate(self.devices):
            for name in (device.name, *device.aliases):
                owner = owners.setdefault(_key(name), number)
                if owner != number:
                    raise ConfigError(
                        f"A name must be that of one device; '{name}' is one of both "
                        f"'{self.devices[owner].name}' and '{device.name}'. Choose another one."
                    )

    def match(self, name: str) -> DeviceSpec | None:
        """Return the device that has this name; None where there is none."""
        wanted = _key(name)
        fitting = (d for d in self.devices if wanted in map(_key, (d.name, *d.aliases)))
        return next(fitting, None) if wanted else None

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


def find_device(name: str) -> DeviceSpec:
    """Return a built-in device or one of the user's.

    Parameters
    ----------
    name
        Name or alias, in any case, with or without spaces, dashes and the vendor's name.

    Raises
    ------
    UnknownDeviceError
        There is no such device; the message names similar ones.
    ConfigError
        The user's file is damaged.
    """
    return load_registry().find(name)


def load_registry(user_file: Path | None = None) -> Registry:
    """Return the built-in devices and those of the user's file.

    Parameters
    ----------
    user_file
        The user's file, which need not exist; `user_device_file()` by default.

    Raises
    ------
    ConfigError
        The user's file is damaged, or names a device as a built-in one.
    """
    if user_file is None:
        try:
            user_file = user_device_file()
        except ConfigError:  # no home folder, so no file either
            return _joined(())
    return _joined(read_user_devices(user_file))


def user_device_file() -> Path:
    """Return where the user's own devices are kept; the file need not exist.

    Raises
    ------
    ConfigError
        This user has no home folder.
    """
    try:
        return Path.home() / ".config" / "tvm-cdmpp" / "devices.json"
    except RuntimeError as error:
        raise ConfigError(f"There is no folder for own devices: {error}. Set HOME.") from error


def read_device_file(file: Path) -> tuple[DeviceSpec, ...]:
    """Read a file of devices.

    Raises
    ------
    OSError
        The file cannot be read.
    ConfigError
        It does not have the form of `jsonform`.
    """
    return parse_devices(file.read_bytes(), str(file))


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
        A name is that of another device; the file is then unchanged.
    """
    new = {device.name for device in devices}
    old = read_user_devices(user_file)
    users = (*(device for device in old if device.name not in new), *devices)
    _joined(users)
    write_atomically(user_file, dump_devices(users).encode())
    return tuple(device.name for device in old if device.name in new)


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
