"""Products with weights, which most of the time of scoring and of training goes to.

PyTorch leaves them to MKL, which is half as fast as it could be on CPUs that are not Intel's. Here
they go to oneDNN, which PyTorch has as well. It makes a kernel for every number of rows, in up to
milliseconds, less for multiples of `ROWS`; so other numbers are left to PyTorch.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 16


def product(values: Tensor, layer: nn.Linear) -> Tensor:
    """Return what a layer makes of values: (N, I) to (N, O)."""
    if not _is_for_onednn(values):
        return nn.functional.linear(values, layer.weight, layer.bias)
    of = _learned if torch.is_grad_enabled() else _of_onednn
    return of(values, layer.weight, layer.bias)


def add_product(sums: Tensor, values: Tensor, layer: nn.Linear) -> Tensor:
    """Add what a layer makes of values, but for its bias: (N, O) and (N, I) to (N, O).

    Where nothing is learned, `sums` may be used up.
    """
    if not _is_for_onednn(values):
        add = torch.addmm if torch.is_grad_enabled() else Tensor.addmm_
        return add(sums, values, layer.weight.t())
    if torch.is_grad_enabled():
        return sums + _learned(values, layer.weight)
    return sums.add_(_of_onednn(values, layer.weight))


class _Product(torch.autograd.Function):
    """A product whose gradients are oneDNN's, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _of_onednn(values, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        of_values, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        return (
            _of_onednn(gradient, weight.t()) if of_values else None,
            _of_onednn(gradient.t(), values.t()) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def _learned(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = _Product.apply(values, weight, bias)  # type: ignore[no-untyped-call]
    return found


def _of_onednn(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = _onednn()(values, weight, bias, "none", [], "")
    return found


def _is_for_onednn(values: Tensor) -> bool:
    return (
        len(values) >= ROWS
        and not len(values) % ROWS
        and values.device.type == "cpu"
        and values.dtype == torch.float32
        and _onednn() is not None
    )


@functools.cache
def _onednn() -> Any:
    """Return PyTorch's way to oneDNN, for its compiler; None where there is none."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    try:
        found = torch.ops.mkldnn._linear_pointwise
        found(torch.ones(ROWS, 1), torch.ones(1, 1), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    return found
