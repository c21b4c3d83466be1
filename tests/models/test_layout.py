"""Programs by leaf count."""

import pytest
import torch

from tvm_cdmpp.models import AdditiveConfig
from tvm_cdmpp.models.additive import FlatEncoderLayer
from tvm_cdmpp.models.layout import Layout, PaddedLayout, leaves_of


@pytest.mark.parametrize("counts", [[3, 1, 2, 1], [2, 2], [1], []])
def test_layouts_keep_leaves_with_their_programs(counts: list[int]) -> None:
    given = torch.tensor(counts, dtype=torch.int64)
    layout = Layout.of(given)
    order = torch.arange(len(counts)) if layout.programs is None else layout.programs
    owners = torch.arange(len(counts)).repeat_interleave(given)
    in_order = owners[leaves_of(given, order, given.cumsum(0) - given)]
    assert layout.of_leaves(order).tolist() == in_order.tolist()
    assert layout.sum(torch.ones(len(owners))).tolist() == given[order].tolist()
    for block in layout.by_count(in_order):
        assert (block == block[:, :1]).all()
    spread = layout.log_sum_exp(torch.zeros(len(owners)), torch.zeros(len(counts)))
    torch.testing.assert_close(spread, torch.log(given[order] + 1.0))


@pytest.mark.parametrize("counts", [[1, 2, 2, 7], [4, 4, 1], [1, 1, 5, 1], [3]])
def test_what_is_in_order_but_for_one_stays(counts: list[int]) -> None:
    layout = Layout.of(torch.tensor(counts))
    assert layout.programs is None
    assert layout.counts.tolist() == counts
    assert [leaves for programs, leaves in layout.blocks for _ in range(programs)] == counts


def test_what_is_mixed_is_put_in_order() -> None:
    layout = Layout.of(torch.tensor([1, 2, 1, 2, 1]))
    assert layout.programs is not None
    assert layout.programs.tolist() == [0, 2, 4, 1, 3]
    assert layout.blocks == ((3, 1), (2, 2))


@pytest.mark.parametrize("counts", [[3, 1, 2, 1], [2, 2], [1]])
def test_padding_changes_nothing(counts: list[int]) -> None:
    """A network gives the same latencies and learns the same, padded or not."""
    given = torch.tensor(counts, dtype=torch.int64)
    torch.manual_seed(0)
    layer = FlatEncoderLayer(AdditiveConfig(width=8, hidden=8, dropout=0.0)).double()
    values = torch.randn(sum(counts), 8, dtype=torch.float64)
    start = torch.randn(len(counts), dtype=torch.float64)
    found = []
    for layout in (Layout.of(given), PaddedLayout.of(given, sum(counts))):
        order = torch.arange(len(counts)) if layout.programs is None else layout.programs
        leaves = leaves_of(given, order, given.cumsum(0) - given)
        hidden = values[leaves].requires_grad_()
        out = layer(hidden, layout) + layout.of_leaves(start[order])[:, None]
        total = layout.log_sum_exp(out[:, 0], start[order]) + layout.sum(out**2).sum(dim=1)
        (total * (1.0 + order)).sum().backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        found.append((out[leaves.argsort()], total[order.argsort()], hidden.grad[leaves.argsort()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
