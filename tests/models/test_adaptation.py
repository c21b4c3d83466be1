"""Steps on a few weights as one vector: those of PyTorch's Adam, with an anchor in the loss."""

import torch
from torch import Tensor, nn

from tvm_cdmpp.models.adaptation import AdaptConfig, AnchoredAdam


def test_steps_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    inputs, target = torch.randn(32, 5), 10.0 * torch.randn(32, 1)
    one, unused = nn.Linear(5, 3), nn.Linear(2, 2)
    network, config = nn.ModuleList([one, nn.Linear(3, 1), unused]), AdaptConfig(anchor=0.3)
    other = nn.ModuleList([nn.Linear(5, 3), nn.Linear(3, 1), nn.Linear(2, 2)])
    other.load_state_dict(network.state_dict())
    anchor = [torch.randn_like(weight) for weight in network.parameters()]

    def loss(of: nn.ModuleList) -> Tensor:
        return nn.functional.mse_loss(of[1](torch.relu(of[0](inputs))), target)

    ours = AnchoredAdam(tuple(network.parameters()), anchor, config)
    theirs = torch.optim.AdamW(other.parameters(), weight_decay=0.0)
    for rate in (0.1, 0.05, 0.02, 0.01):
        ours.take(loss(network), rate)
        theirs.param_groups[0]["lr"] = rate
        pull = sum((w - a).square().sum() for w, a in zip(other.parameters(), anchor, strict=True))
        theirs.zero_grad()
        (loss(other) + config.anchor * pull).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(other.parameters(), config.gradient_clip)
        theirs.step()
    for mine, expected in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)
