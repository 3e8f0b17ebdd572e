"""The average of the weights, which is timm's, and what its warm-up leaves of `ema`."""

from typing import Any

from timm.utils import ModelEmaV3
from torch import nn


def create_average(model: nn.Module, ema: Any) -> ModelEmaV3 | None:
    """The average of `model` with the decay `ema`; None for `none`."""
    if ema == "none":
        return None
    # The average of few steps would be mostly initial weights: the decay rises to `ema`.
    return ModelEmaV3(model, decay=ema, use_warmup=True)


def last_decay(ema: float, steps: int) -> float:
    """The decay in the last of `steps`: timm's warm-up lets step n have 1 - n^(-2/3) at most."""
    return min(ema, 1 - steps ** (-2 / 3))


def warm_up_remark(ema: float | None, steps: int) -> str:
    """A line that names the decay which a training of `steps` comes to; empty if that is `ema`."""
    if ema is None or (reached := f"{last_decay(ema, steps):.4g}") == f"{ema:.4g}":
        return ""
    return (
        f"train: ema {ema:g} acts like {reached}: timm's warm-up of the average is not over after "
        f"{steps} steps"
    )
