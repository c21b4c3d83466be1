"""Where the leaves of programs lie, so that attention and sums take many programs at once.

On a CPU, programs are ordered by their numbers of leaves, so that nothing is padded. On a GPU,
where starting a kernel costs more than what is padded, all are padded to the leaves of the longest.

Shapes: B programs, N leaves of all of them, which lie one after the other; L leaves of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor | None], Tensor]
"""Takes values of programs, (B, L, ...), and which are of leaves, (B, L), None if all are; returns
(B L, ...)."""


def lay_out(counts: Tensor, num_leaves: int) -> Layout | PaddedLayout:
    """Lay out programs with these numbers of leaves, (B,), as is fastest where they are."""
    return PaddedLayout.of(counts, num_leaves) if counts.is_cuda else Layout.of(counts)


@dataclass(frozen=True)
class Layout:
    """Programs by leaf count: those that have as many leaves lie one after the other."""

    programs: Tensor | None
    """Programs in the order of this layout, (B,); None where they are as they were given."""
    counts: Tensor
    """Leaves per program, in this order; (B,)."""
    blocks: tuple[tuple[int, int], ...]
    """Programs that lie together and have as many leaves, and leaves of each of them."""

    @staticmethod
    def of(counts: Tensor) -> Layout:
        """Lay programs out."""
        order = None
        leaves, programs = torch.unique_consecutive(counts, return_counts=True)
        # All but one in order, as a batch with one program that fills it up, is as good.
        if len(leaves) > 1 + int(torch.bincount(counts).count_nonzero()):
            order = counts.argsort(stable=True)
            counts = counts[order]
            leaves, programs = torch.unique_consecutive(counts, return_counts=True)
        blocks = tuple(zip(programs.tolist(), leaves.tolist(), strict=True))
        return Layout(order, counts, blocks or ((0, 1),))

    def of_leaves(self, values: Tensor) -> Tensor:
        """Give each leaf the values of its program; (B, ...) to (N, ...)."""
        if len(self.blocks) == 1:
            return values.repeat_interleave(self.blocks[0][1], dim=0)
        leaves = sum(programs * leaves for programs, leaves in self.blocks)
        return values.repeat_interleave(self.counts, dim=0, output_size=leaves)

    def by_count(self, values: Tensor) -> list[Tensor]:
        """Divide values of leaves by leaf count; (N, ...) to (programs, leaves, ...) of each."""
        sizes = [programs * leaves for programs, leaves in self.blocks]
        parts = zip(torch.split(values, sizes), self.blocks, strict=True)
        return [part.view(*block, *values.shape[1:]) for part, block in parts]

    def mix(self, values: Tensor, attend: Attend) -> Tensor:
        """Let the leaves of each program look at each other; (N, ...) to (N, ...)."""
        return join([attend(block, None) for block in self.by_count(values)])

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the leaves of each program; (N, ...) to (B, ...)."""
        return join([block.sum(dim=1) for block in self.by_count(values)])

    def log_sum_exp(self, values: Tensor, another: Tensor) -> Tensor:
        """Add up exponentials of what leaves and their program say; (N,) and (B,) to (B,)."""
        of_leaves = join([block.logsumexp(dim=1) for block in self.by_count(values)])
        return torch.logaddexp(of_leaves, another)


@dataclass(frozen=True)
class PaddedLayout:
    """Programs in the order that they are given in, as if all had as many leaves as the longest."""

    counts: Tensor
    """Leaves per program; (B,)."""
    owners: Tensor
    """Program of each leaf; (N,)."""
    places: Tensor
    """Place of each leaf among those of all programs, padded; (N,)."""
    longest: int
    """Leaves that programs are padded to."""

    programs = None
    """The order stays."""

    @staticmethod
    def of(counts: Tensor, num_leaves: int) -> PaddedLayout:
        """Lay programs out."""
        longest = int(counts.max()) if len(counts) else 0
        programs = torch.arange(len(counts), device=counts.device)
        owners = programs.repeat_interleave(counts, output_size=num_leaves)
        shifts = longest * programs - (torch.cumsum(counts, 0) - counts)
        places = torch.arange(num_leaves, device=counts.device) + shifts[owners]
        return PaddedLayout(counts, owners, places, longest)

    def of_leaves(self, values: Tensor) -> Tensor:
        """Give each leaf the values of its program; (B, ...) to (N, ...)."""
        return values.index_select(0, self.owners)

    def mix(self, values: Tensor, attend: Attend) -> Tensor:
        """Let the leaves of each program look at each other; (N, ...) to (N, ...)."""
        numbers = torch.arange(self.longest, device=self.counts.device)
        is_leaf = numbers < self.counts[:, None]
        return attend(self._pad(values, 0.0), is_leaf).index_select(0, self.places)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the leaves of each program; (N, ...) to (B, ...)."""
        return self._pad(values, 0.0).sum(dim=1)

    def log_sum_exp(self, values: Tensor, another: Tensor) -> Tensor:
        """Add up exponentials of what leaves and their program say; (N,) and (B,) to (B,)."""
        of_leaves = self._pad(values, -torch.inf).logsumexp(dim=1)
        return torch.logaddexp(of_leaves, another)

    def _pad(self, values: Tensor, fill: float) -> Tensor:
        """Return values with others between programs; (N, ...) to (B, L, ...)."""
        shape = len(self.counts), self.longest, *values.shape[1:]
        padded = values.new_full((shape[0] * shape[1], *shape[2:]), fill)
        return padded.index_copy(0, self.places, values).view(shape)


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
