"""Devices as JSON: the form of the built-in registry, of users' files, and of what is detected.

    {"format": 1, "devices": [
      {"name": "t4", "kind": "gpu", "aliases": ["Tesla T4"], "note": "",
       "figures": {
         "NVIDIA T4 data sheet": {"clock_hz": 1.59e9, "bandwidth_bytes_per_s": 3.2e11, ...},
         "estimated from ...": {"int8_ops": 1.3e14}}}]}

Figures stand under their source, so that none comes without one. Units are part of their names;
`DeviceSpec` says what each means. A figure that is optional is null or left out where unknown. What
was measured on a device is no part of this form: it would come along to a device that is described
after this one. It is in `devices.calibration`'s file; a field `calibration`, as this form had once,
is ignored.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_type_hints

from tvm_cdmpp.devices.spec import FIGURES, KINDS, OPTIONAL_FIGURES, REQUIRED_FIGURES, DeviceSpec
from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.files import parse_json

FORMAT = 1

_NAME = re.compile(r"[a-z0-9][a-z0-9.+]*(-[a-z0-9.+]+)*")
_INTEGERS = frozenset(name for name in FIGURES if get_type_hints(DeviceSpec)[name] is int)
_KEYS = ("name", "kind", "figures", "aliases", "note", "calibration")
_UNSOURCED = "not stated"


def parse_devices(text: str | bytes, where: str) -> tuple[DeviceSpec, ...]:
    """Read devices.

    Parameters
    ----------
    text
        JSON of the form above.
    where
        What to call it in errors, such as the name of the file.

    Raises
    ------
    ConfigError
        Something is missing, unknown, twice there, or not a possible figure; the message names
        the device and the field, what was expected and what was found.
    """
    try:
        document = parse_json(text, object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise ConfigError(f"{where} is not usable as JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else _show(document)
        raise ConfigError(
            f'{where} must be an object with "format": {FORMAT} and a list "devices"; '
            f"got {found} for the format."
        )
    _check_keys(document, ("format", "devices"), (), where)
    entries = document["devices"]
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: devices must be a list; got {_show(entries)}.")
    return tuple(_parse_device(entry, f"{where}, device {n}") for n, entry in enumerate(entries, 1))


def dump_devices(devices: Iterable[DeviceSpec]) -> str:
    """Write devices; `parse_devices` reads the same ones back, without their calibrations."""
    document = {"format": FORMAT, "devices": [_to_json(device) for device in devices]}
    return json.dumps(document, indent=2) + "\n"


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _to_json(device: DeviceSpec) -> dict[str, Any]:
    figures: dict[str, dict[str, float]] = {}
    for name in FIGURES:
        value = getattr(device, name)
        if value is not None:
            figures.setdefault(device.sources.get(name, _UNSOURCED), {})[name] = value
    return {
        "name": device.name,
        "kind": device.kind,
        "aliases": list(device.aliases),
        "note": device.note,
        "figures": figures,
    }


def _parse_device(entry: Any, where: str) -> DeviceSpec:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be an object; got {_show(entry)}.")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: name must be lower-case words of letters and digits with dashes between, "
            f"as in rtx-3090; got {_show(name)}."
        )
    where = f"{where} ('{name}')"
    _check_keys(entry, _KEYS[:3], _KEYS[3:], where)
    if entry["kind"] not in KINDS:
        raise ConfigError(
            f"{where}: kind must be one of {', '.join(KINDS)}; got {_show(entry['kind'])}."
        )
    aliases, note = entry.get("aliases", []), entry.get("note", "")
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise ConfigError(f"{where}: aliases must be a list of strings; got {_show(aliases)}.")
    if not isinstance(note, str):
        raise ConfigError(f"{where}: note must be a string; got {_show(note)}.")
    figures, sources = _parse_figures(entry["figures"], where)
    try:
        return DeviceSpec(
            name=name, kind=entry["kind"], aliases=tuple(aliases), note=note, sources=sources,
            **figures,
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _parse_figures(groups: Any, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read figures and their sources, both by the figure's name."""
    figures: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if not isinstance(groups, dict) or not all(isinstance(g, dict) for g in groups.values()):
        raise ConfigError(
            f"{where}: figures must be an object of objects, the figures by name under their "
            f"source; got {_show(groups)}."
        )
    for source, group in groups.items():
        if not source.strip():
            raise ConfigError(f"{where}: figures must stand under a source; got an empty one.")
        for name, value in group.items():
            if name in sources:
                raise ConfigError(
                    f"{where}: {name} must be given once; got it from '{sources[name]}' and from "
                    f"'{source}'."
                )
            figures[name] = _parse_figure(name, value, where)
            sources[name] = source
    missing = [name for name in REQUIRED_FIGURES if name not in figures]
    if missing:
        raise ConfigError(
            f"{where}: {', '.join(missing)} must be given under figures; estimate what is not "
            "known, and say so in the source."
        )
    return figures, sources


def _parse_figure(name: str, value: Any, where: str) -> Any:
    if name not in FIGURES:
        raise ConfigError(
            f"{where}: a figure must be one of {', '.join(FIGURES)}; "
            f"got {name}{_did_you_mean(name, FIGURES)}."
        )
    if value is None and name in OPTIONAL_FIGURES:
        return None
    if isinstance(value, bool) or not isinstance(value, int if name in _INTEGERS else (int, float)):
        expected = "an integer" if name in _INTEGERS else "a number"
        raise ConfigError(f"{where}: {name} must be {expected}; got {_show(value)}.")
    return value


def _check_keys(
    found: Mapping[str, Any], required: Collection[str], optional: Collection[str], where: str
) -> None:
    for key in required:
        if key not in found:
            raise ConfigError(f"{where}: {key} is missing; got {', '.join(found)}.")
    known = (*required, *optional)
    for key in found:
        if key not in known:
            raise ConfigError(
                f"{where}: a field must be one of {', '.join(known)}; "
                f"got {key}{_did_you_mean(key, known)}."
            )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; Python's own reader would keep the last of two equal keys, in silence."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} comes twice in one object")
    return result


def _show(value: Any) -> str:
    """Write a value for a message, cut to a readable length."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
