"""What `own_net` must keep, whatever net it is."""

import pytest
import torch
from torch.nn import functional

from src.base.imports import ROOT
from src.plumbing import params
from src.yours.net import own_net

PARAMS = params.own_params(params.load(ROOT))
CLASSES, SIZE = 4, 32


@pytest.mark.parametrize("channels", [1, 3])
def test_it_learns_with_each_of_its_parameters(channels: int) -> None:
    torch.manual_seed(0)
    net = own_net(CLASSES, channels, SIZE, PARAMS).train()
    logits = net(torch.randn(8, channels, SIZE, SIZE))
    assert logits.shape == (8, CLASSES)
    assert logits.isfinite().all()
    functional.cross_entropy(logits, torch.arange(8) % CLASSES).backward()
    resting = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not resting


def test_a_sample_is_judged_alone_in_evaluation() -> None:
    torch.manual_seed(0)
    net = own_net(CLASSES, 3, SIZE, PARAMS).eval()
    samples = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        alone = torch.cat([net(samples[i : i + 1]) for i in range(4)])
        assert torch.allclose(net(samples), alone, atol=1e-4)


def test_the_same_seed_gives_the_same_weights() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(own_net(CLASSES, 3, SIZE, PARAMS).state_dict())
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
