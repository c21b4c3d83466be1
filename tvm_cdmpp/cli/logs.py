"""How `explain` and `report` read a log: wrong lines and a missing device are told by option."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_cdmpp.errors import ConfigError, UnknownDeviceError

if TYPE_CHECKING:
    from tvm_cdmpp.devices import DeviceSpec
    from tvm_cdmpp.search import MeasuredLog


def read_log(path: Path, device: "DeviceSpec | None") -> "MeasuredLog":
    """Read a log as `read_measured_log` does; device is what `--device` names.

    Raises
    ------
    RecordError
        It cannot be read, or no record of it can be used.
    UnknownDeviceError
        There is no `--device`, and a target names none.
    """
    from tvm_cdmpp.search import read_measured_log

    try:
        return read_measured_log(path, device)
    except UnknownDeviceError as error:
        reason = str(error).partition(". ")[0]  # what comes after is for Python
        raise UnknownDeviceError(
            f"{reason}. Give the device that {path} was measured on: --device D; `tvm-cdmpp device "
            "show` lists the known ones."
        ) from error


def check_line(path: Path, line: int | None, option: str) -> None:
    """Refuse the number of a line that a log does not have; one that cannot be read passes.

    Raises
    ------
    ConfigError
        It has none.
    """
    from tvm_cdmpp.data import read_lines

    if line is None:
        return
    with suppress(OSError):
        count = sum(1 for _ in read_lines(path, lambda _: None))
        if count and not 1 <= line <= count:
            raise ConfigError(
                f"{option} {line} is no line of {path}: its lines have the numbers 1 to {count}"
            )
