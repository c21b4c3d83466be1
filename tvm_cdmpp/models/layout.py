"""Programs ordered by their numbers of leaves, so that nothing is padded.

Shapes: B programs, N leaves of all of them, which lie one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Programs by leaf count: those that have as many leaves lie one after the other."""

    programs: Tensor | None
    """Programs in the order of this layout, (B,); None where all have as many leaves."""
    counts: Tensor
    """Leaves per program, in this order; (B,)."""
    blocks: tuple[tuple[int, int], ...]
    """Programs of each leaf count, and leaves of each of them."""

    @staticmethod
    def of(counts: Tensor) -> Layout:
        """Lay programs out."""
        by_count = enumerate(torch.bincount(counts).tolist())
        blocks = tuple((programs, leaves) for leaves, programs in by_count if programs)
        if len(blocks) <= 1:
            return Layout(None, counts, blocks or ((0, 1),))
        order = counts.argsort(stable=True)
        return Layout(order, counts[order], blocks)

    def of_leaves(self, values: Tensor) -> Tensor:
        """Give each leaf the values of its program; (B, ...) to (N, ...)."""
        if self.programs is None:
            return values.repeat_interleave(self.blocks[0][1], dim=0)
        leaves = sum(programs * leaves for programs, leaves in self.blocks)
        return values.repeat_interleave(self.counts, dim=0, output_size=leaves)

    def by_count(self, values: Tensor) -> list[Tensor]:
        """Divide values of leaves by leaf count; (N, ...) to (programs, leaves, ...) of each."""
        sizes = [programs * leaves for programs, leaves in self.blocks]
        parts = zip(torch.split(values, sizes), self.blocks, strict=True)
        return [part.view(*block, *values.shape[1:]) for part, block in parts]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the leaves of each program; (N, ...) to (B, ...)."""
        return join([block.sum(dim=1) for block in self.by_count(values)])

    def log_sum_exp(self, values: Tensor, another: Tensor) -> Tensor:
        """Add up exponentials of what leaves and their program say; (N,) and (B,) to (B,)."""
        of_leaves = join([block.logsumexp(dim=1) for block in self.by_count(values)])
        return torch.logaddexp(of_leaves, another)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Return parts one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def leaves_of(counts: Tensor, programs: Tensor, firsts: Tensor) -> Tensor:
    """Return the leaves of some programs, given all programs' numbers of leaves and first ones."""
    counts = counts[programs]
    shifts = firsts[programs] - (torch.cumsum(counts, 0) - counts)
    leaves = int(counts.sum())
    each = shifts.repeat_interleave(counts, output_size=leaves)
    return torch.arange(leaves, device=counts.device) + each
