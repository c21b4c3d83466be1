"""Products through oneDNN and through MKL are the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tvm_cdmpp.models import products
from tvm_cdmpp.models.products import ROWS, add_product, product


@pytest.fixture(params=[4 * ROWS, 4 * ROWS + 1, 0])
def values(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(request.param, 24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learns", [False, True])
def test_products_are_those_of_the_layer(values: Tensor, dtype: torch.dtype, learns: bool) -> None:
    layer, bare = nn.Linear(24, 40).to(dtype), nn.Linear(24, 40, bias=False).to(dtype)
    values = values.to(dtype)
    sums = torch.randn(len(values), 40, dtype=dtype)
    with torch.set_grad_enabled(learns):
        torch.testing.assert_close(product(values, layer), layer(values))
        torch.testing.assert_close(product(values, bare), bare(values))
        expected = sums + bare(values)
        torch.testing.assert_close(add_product(sums.clone(), values, bare), expected)


@pytest.mark.parametrize("has_bias", [False, True])
def test_gradients_are_those_of_the_layer(values: Tensor, has_bias: bool) -> None:
    layer, other = nn.Linear(24, 40, bias=has_bias), nn.Linear(24, 24, bias=False)
    values.requires_grad_()
    learned = [values, *layer.parameters(), *other.parameters()]
    one = add_product(values * 2.0, values, other).sin()
    two = (2.0 * values + other(values)).sin()
    found, expected = (
        torch.autograd.grad(made.square().sum(), learned)
        for made in (product(one, layer), layer(two))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.skipif(products._onednn() is None, reason="needs PyTorch with oneDNN on x86")
def test_full_blocks_go_to_onednn_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    onednn = products._onednn()
    rows: list[int] = []

    def spied(values: Tensor, *arguments: object) -> Tensor:
        rows.append(len(values))
        found: Tensor = onednn(values, *arguments)
        return found

    find: Callable[[], object] = lambda: spied  # noqa: E731
    monkeypatch.setattr(products, "_onednn", find)
    layer = nn.Linear(24, 40, bias=False)
    with torch.no_grad():
        for count in (ROWS, 3 * ROWS, ROWS - 1):
            product(torch.ones(count, 24), layer)
            add_product(torch.ones(count, 40), torch.ones(count, 24), layer)
    assert rows == [ROWS, ROWS, 3 * ROWS, 3 * ROWS]
    product(torch.ones(ROWS, 24), layer).sum().backward()  # type: ignore[no-untyped-call]
    assert rows[4:] == [ROWS, 40]  # the product, and the gradient of its weights


def test_without_onednn_all_is_as_before(values: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_onednn", lambda: None)
    layer = nn.Linear(24, 40)
    with torch.no_grad():
        torch.testing.assert_close(product(values, layer), layer(values))
