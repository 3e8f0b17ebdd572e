"""What to set where a net does not take the samples: what was tried, or what is named a guess.

The trials run on torch's meta device, which knows shapes and no numbers: they cost no memory, and
seconds with the largest nets.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from src.plumbing.errors import InputError

STEPS = (8, 16, 32, 64)  # nets want sizes that these divide
USUAL = 224

Build = Callable[[Sequence[int]], nn.Module]  # the net for an input size C, H, W


class DoesNotFit(InputError):
    """A net does not take the samples: the `fact`, and what to set."""

    def __init__(self, fact: str, advice: str = ""):
        super().__init__(f"{fact}: {advice}")
        self.fact = fact


def what_fits(build: Build, classes: int, input_size: Sequence[int], known: int = USUAL) -> str:
    """What to set for a net that does not take samples of `input_size`, such as `set
    prepare.channels to 3 (tried)`. `known`: the size that it was published for."""
    if len(input_size) != 3:
        return "set another model"
    found = True
    tried = list(_others(input_size, known))
    for size in tried:
        if fits := takes(build, classes, size):
            keys = {"channels": (size[0], input_size[0]), "size": (size[1], input_size[1])}
            changed = [f"prepare.{key} to {new}" for key, (new, old) in keys.items() if new != old]
            return f"set {' and '.join(changed)} (tried)"
        found = found and fits is not None
    if found:
        largest = max(side for _, side, _ in tried)
        return f"no other prepare.size or channels helps (up to {largest} tried): set another model"
    return "perhaps it takes another prepare.size (a guess): set that, or another model"


def takes(build: Build, classes: int, input_size: Sequence[int]) -> bool | None:
    """Whether the net can be built for this input size, and makes logits; None if that cannot be
    known without numbers."""
    try:
        with torch.device("meta"), torch.no_grad():
            logits = build(input_size).eval()(torch.zeros(2, *input_size))
        return bool(logits.shape == (2, classes))
    except NotImplementedError:
        return None
    except Exception as error:  # whatever a net raises
        return None if "meta" in str(error) else False


def _others(input_size: Sequence[int], known: int) -> Iterator[tuple[int, int, int]]:
    """The input sizes to try, the nearest first; grey or colour last, as that changes the data."""
    channels, size, _ = input_size
    rounded = {-(-size // step) * step for step in STEPS}
    sizes = sorted(rounded | {side for side in (known, USUAL) if side > size})
    for number in (channels, 4 - channels):
        for side in (size, *(side for side in sizes if side != size)):
            if (number, side) != (channels, size):
                yield number, side, side
