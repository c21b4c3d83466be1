"""The file that keeps the calibrations of devices.

It is a file of its own, as built-in devices and this machine's CPU have calibrations, too:

    {"format": 1, "calibrations": {"my-cpu": {
       "date": "2026-01-31T12:00:00+00:00", "tvm": "0.17.0", "commit": null, "disturbed": false,
       "wake_s": 1.4e-6, "plain_level": -0.3, "library_level": -0.2, "kept_level": -0.5,
       "levels": [{"weights": "a35f...", "level": 0.21, "operators": {"conv2d": 0.3, ...},
                   "own_level": 0.5, "own_operators": {"conv2d": 0.9, ...}}],
       "programs": [{"operator": "conv2d", "task": "conv2d 1x32x28x28,...", "measured_s": 1e-3,
                     "log_ratio": 0.28, "own": false}, ...]}}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.files import config_folder, locked, parse_json, write_atomically

FORMAT = 1


def calibration_file() -> Path:
    """Return where the calibrations of devices are kept; the file need not exist.

    Raises
    ------
    ConfigError
        This user has no home folder.
    """
    return config_folder() / "calibrations.json"


class _Calibrations(Mapping[str, DeviceCalibration]):
    """Calibrations, each read when it is asked for: a damaged one is in nobody else's way."""

    def __init__(self, entries: Mapping[str, Any], file: Path) -> None:
        self._entries, self._file = entries, file

    def __getitem__(self, name: str) -> DeviceCalibration:
        return DeviceCalibration.from_json(self._entries[name], f"{self._file}, '{name}',")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def read_calibrations(file: Path) -> Mapping[str, DeviceCalibration]:
    """Read calibrations by the name of the device; none where there is no file.

    Returns
    -------
    calibrations
        Looking up one that is damaged raises `ConfigError`.

    Raises
    ------
    ConfigError
        The file cannot be read, or has another form.
    """
    return _Calibrations(_read_entries(file), file)


def _read_entries(file: Path) -> dict[str, Any]:
    """Read the JSON values of calibrations by the name of the device."""
    _check_place(file)
    try:
        document = parse_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(
            f"The calibrations in {file} cannot be read: {error.strerror}. Make the file readable."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"The calibrations in {file} cannot be read: {error}. Remove the file; "
            "`tvm-cdmpp device calibrate` writes a new one."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f'{file} must be an object with "format": {FORMAT}; remove it.')
    entries = document.get("calibrations")
    if not isinstance(entries, dict):
        raise ConfigError(
            f"{file}: calibrations must be an object, by the names of devices. Remove the file; "
            "`tvm-cdmpp device calibrate` writes a new one."
        )
    return entries


def _check_place(file: Path) -> None:
    """Name what is in the way of the file, such as a file where its folder should be."""
    if file.is_dir():
        raise ConfigError(
            f"{file} is a folder, where the calibrations of devices are kept in a file. Move the "
            "folder away."
        )
    taken = next(parent for parent in file.absolute().parents if parent.exists())
    if not taken.is_dir():
        raise ConfigError(
            f"{taken} is no folder, so that no calibrations of devices can be kept in {file}. Move "
            "it away, or set XDG_CONFIG_HOME to a folder."
        )


def keep_calibration(name: str, calibration: DeviceCalibration | None, file: Path) -> bool:
    """Keep a device's calibration, atomically, or forget it.

    Parameters
    ----------
    name
        The device's.
    calibration
        What takes the place of the one before, but for levels of other weights: these have learned
        on top of them. One that cannot be read is replaced whole. None to forget all.
    file
        Where they are kept.

    Returns
    -------
    replaced
        Whether there was one.

    Raises
    ------
    ConfigError
        The file is damaged, and not just a calibration in it; it is then unchanged.
    RecordError
        Another process changes the file.
    """

    def change(find: Callable[[], DeviceCalibration | None]) -> DeviceCalibration | None:
        try:
            before = find()
        except ConfigError:
            before = None
        if calibration is None or before is None:
            return calibration
        new = {levels.weights for levels in calibration.levels}
        others = (levels for levels in before.levels if levels.weights not in new)
        return replace(calibration, levels=(*calibration.levels, *others))

    return _change(name, change, file)


def keep_levels(name: str, levels: Levels, file: Path) -> None:
    """Keep levels for some weights with a device's calibration, if it has one.

    Parameters
    ----------
    name
        The device's.
    levels
        They take the place of those that there are for the same weights.
    file
        Where calibrations are kept.

    Raises
    ------
    ConfigError, RecordError
        As from `keep_calibration`; also where the device's calibration is damaged.
    """

    def change(find: Callable[[], DeviceCalibration | None]) -> DeviceCalibration | None:
        found = find()
        if found is None:
            return None
        others = (known for known in found.levels if known.weights != levels.weights)
        return replace(found, levels=(*others, levels))

    _change(name, change, file)


def _change(
    name: str,
    change: Callable[[Callable[[], DeviceCalibration | None]], DeviceCalibration | None],
    file: Path,
) -> bool:
    """Change a device's calibration, atomically, given what reads it; tell if there was one."""
    _check_place(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock"), f"a change of {file}", wait_s=10.0):
        entries = _read_entries(file)
        after = change(lambda: _Calibrations(entries, file).get(name))
        was_kept = name in entries
        entries.pop(name, None)
        if after is not None:
            entries[name] = after.to_json()
        if was_kept or after is not None:
            document = {"format": FORMAT, "calibrations": dict(sorted(entries.items()))}
            write_atomically(file, (json.dumps(document, indent=1) + "\n").encode())
    return was_kept
