"""What is advised where a net does not take the samples was tried: following it works."""

import re

import pytest
import torch
from torch import nn

from src.model.create import create_model
from src.plumbing.errors import InputError
from src.yours import net


def followed(size: tuple[int, int, int], line: str) -> tuple[int, int, int]:
    """The input size when the advice is taken."""
    found = {key: int(value) for key, value in re.findall(r"prepare\.(\w+) to (\d+)", line)}
    channels, side = found.get("channels", size[0]), found.get("size", size[1])
    return channels, side, side


@pytest.mark.parametrize(
    ("name", "size", "keys"),
    [
        ("csatv2", (1, 64, 64), {"channels"}),  # it converts colours: the size is not the cause
        ("test_vit", (1, 17, 17), {"size"}),
        ("crossvit_tiny_240", (3, 32, 32), {"size"}),  # the one that it was published for alone
        ("vgg11", (3, 16, 16), {"size"}),
        ("torchvision:vit_b_16", (1, 16, 16), {"size"}),  # positions for one size alone
    ],
)
def test_whoever_follows_the_advice_gets_a_net(
    name: str, size: tuple[int, int, int], keys: set[str]
) -> None:
    """Nets for which the number of channels is the cause, and others for which the size is."""
    with pytest.raises(InputError) as caught:
        create_model(name, 3, size)
    line = str(caught.value)
    assert line.endswith("(tried)"), line
    assert set(re.findall(r"set prepare\.(\w+)| and prepare\.(\w+)", line)[0]) - {""} == keys
    assert isinstance(create_model(name, 3, followed(size, line)), nn.Module)


class Square(nn.Module):
    """Takes images of 20 pixels alone, which nobody tries."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20 * 20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mean(dim=1).flatten(1))


class Asks(Square):
    """Asks for numbers, which a trial has not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + float(x.sum()))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Square, "no other prepare.size or channels helps (up to 224 tried): set another model"),
        (Asks, "perhaps it takes another prepare.size (a guess): set that, or another model"),
    ],
)
def test_what_was_not_found_is_not_advised(
    kind: type[nn.Module], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "own_net", lambda *_: kind())
    with pytest.raises(InputError) as caught:
        create_model("own", 3, (3, 17, 17))
    assert str(caught.value).endswith(f"{words}, or change own_net")


def test_weights_that_hold_no_numbers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another model, which would not help."""
    head = nn.Linear(3, 3)
    broken = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        head.weight[0, 0] = torch.nan
    monkeypatch.setattr(net, "own_net", lambda *_: broken)
    with pytest.raises(InputError, match=r"2\.weight has such values: look at the weights"):
        create_model("own", 3, (3, 16, 16))
