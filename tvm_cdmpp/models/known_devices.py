"""What a device counts as, for a network that was trained on programs of a few devices.

Vectors are those of `DeviceSpec.vector`, with rates per cycle instead of per second: D devices, of
len(DEVICE_FIELDS) fields.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tvm_cdmpp.devices import DEVICE_FIELDS

CLOCK = DEVICE_FIELDS.index("clock_hz")
_PER_SECOND = tuple(map(DEVICE_FIELDS.index, ("clock_hz", "peak_flops", "bandwidth_bytes_per_s")))
_WIDTH = DEVICE_FIELDS.index("simd_bytes")
_WIDTH_FIRST = 10.0
"""How much more than in other fields devices differ in the width of vectors or warps."""
SAME = 1e-3
"""Devices of which no field differs by more are one."""
_LEAST_OWN = 1e-3
"""Of a device's distance from a reference: what must not be a mix of the references'."""


def in_cycles(devices: Tensor) -> Tensor:
    """Return device vectors whose rates are per cycle; (D, fields) as is what is given."""
    made = devices.clone()
    for place in _PER_SECOND:
        made[:, place] -= devices[:, CLOCK]
    return made


def as_known(devices: Tensor, known: Tensor, references: Tensor) -> Tensor:
    """Return the nearest reference of each device that is not known, known ones as they are.

    Parameters
    ----------
    devices
        Of shape (D, fields).
    known
        Devices that count as themselves.
    references
        Devices that others may count as; all are themselves where there is none.
    """
    if not len(references):
        return devices
    apart = (devices[:, None] - references).abs()
    apart[:, :, _WIDTH] *= _WIDTH_FIRST
    nearest = references[apart.square().sum(dim=2).argmin(dim=1)]
    is_known = (devices[:, None] - known).abs().amax(dim=2) < SAME
    return torch.where(is_known.any(dim=1, keepdim=True), devices, nearest)


def own_direction(device: Tensor, references: Tensor) -> Tensor | None:
    """Return what of a device no mix of references has.

    A linear map can be changed along it for this device and for no reference: with the first
    reference as the origin, the device's part along it is 1 and that of references is 0.

    Parameters
    ----------
    device
        Of shape (fields,).
    references
        At least one.

    Returns
    -------
    direction
        Of shape (fields,); None where the device is a mix of references.
    """
    others, step = (references[1:] - references[0]).T, device - references[0]
    own = step - others @ (torch.linalg.pinv(others) @ step)
    if own.norm() <= _LEAST_OWN * step.norm():
        return None
    direction: Tensor = own / (own @ step)
    return direction
