"""Programs by leaf count."""

import pytest
import torch

from tvm_cdmpp.models.layout import Layout, leaves_of


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
