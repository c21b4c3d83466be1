"""Arguments that several rooms take."""

from __future__ import annotations

from pathlib import Path

from tvm_cdmpp.errors import ConfigError

_MOST_SEED = 2**31 - 1  # with room for what is added to it, below NumPy's 2**32


def check_seed(seed: object) -> None:
    """Refuse what is no seed.

    Raises
    ------
    ConfigError
        It is not a whole number from 0 to 2**31 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MOST_SEED:
        raise ConfigError(f"seed must be a whole number from 0 to {_MOST_SEED}; got {seed!r}.")


def as_path(file_name: object) -> Path:
    """Return the path that a name means.

    Raises
    ------
    ConfigError
        No file can have this name.
    """
    if not isinstance(file_name, str | Path) or "\0" in str(file_name):
        raise ConfigError(f"A file is named by a str or Path without NUL; got {file_name!r}.")
    return Path(file_name)
