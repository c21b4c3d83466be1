"""Dropout that costs half as much as PyTorch's on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout of PyTorch's distribution, its share rounded to 1 / 65536, in half the time.

    One random integer decides over four values.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._least = round(share * 2**16) - 2**15

    def forward(self, values: Tensor) -> Tensor:
        """Return values with some of them 0, in training."""
        if not self.training or self._least == -(2**15):
            return values
        drawn = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device)
        drawn = drawn.random_(-(2**63), None).view(torch.int16)[: values.numel()]
        kept = (drawn >= self._least).to(values.dtype).mul_(2**16 / (2**15 - self._least))
        return values * kept.view_as(values)
