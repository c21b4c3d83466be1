"""A setting to train with, as a file: sizes of the network, and how it is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models import AdditiveConfig
from tvm_cdmpp.train.config import TrainConfig

_Config = TypeVar("_Config", AdditiveConfig, TrainConfig)


def read_setting(path: Path) -> tuple[AdditiveConfig, TrainConfig]:
    """Read a setting, such as the summary of `autotune`.

    Parameters
    ----------
    path
        A JSON object; its parts `network` and `config` have fields of `AdditiveConfig` and of
        `TrainConfig`. What they leave out is as it is by default; other parts are not looked at.

    Raises
    ------
    ConfigError
        The file cannot be read, or a field is unknown, of another type or out of its range.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"expected a JSON file with a setting; {path}: {error}") from error
    if not isinstance(content, dict) or not {"network", "config"} & set(content):
        raise ConfigError(
            f"{path} must be a JSON object with 'network' or 'config', as `tvm-cdmpp autotune` "
            "writes into summary.json"
        )
    try:
        return (
            with_fields(AdditiveConfig(), content.get("network", {})),
            with_fields(TrainConfig(), content.get("config", {})),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_fields(config: _Config, values: Mapping[str, Any]) -> _Config:
    """Return a configuration with some fields replaced.

    Raises
    ------
    ConfigError
        A field is unknown, of another type or out of its range.
    """
    known = {each.name: type(getattr(config, each.name)) for each in fields(config)}
    if not isinstance(values, Mapping):
        raise ConfigError(f"expected fields of {type(config).__name__} by name; got {values!r}")
    for name, value in values.items():
        if name not in known:
            raise ConfigError(
                f"unknown field '{name}' of {type(config).__name__}; known are {', '.join(known)}"
            )
        allowed = (int, float) if known[name] is float else known[name]
        if not isinstance(value, allowed) or isinstance(value, bool) is not (known[name] is bool):
            raise ConfigError(f"'{name}' must be of type {known[name].__name__}; got {value!r}")
    return replace(config, **values)
