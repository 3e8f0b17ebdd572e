"""The average of the weights: timm's, by two operations for all of them. timm's own walks through
both nets in each step, and copies the counters of BatchNorm one by one."""

import torch
from timm.utils import ModelEmaV3
from torch import nn

Pairs = tuple[list[torch.Tensor], list[torch.Tensor]]  # of the average, of the model


class Average(ModelEmaV3):
    _of: nn.Module | None = None
    _floats: Pairs
    _counts: Pairs

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """One step of the average of `model`, whose tensors must stay where they are."""
        if self._of is not model:
            states = self.module.state_dict().values(), model.state_dict().values()
            pairs = list(zip(*states, strict=True))
            self._floats = _columns([pair for pair in pairs if pair[0].is_floating_point()])
            self._counts = _columns([pair for pair in pairs if not pair[0].is_floating_point()])
            self.__dict__["_of"] = model  # not as a part of this module
        torch._foreach_lerp_(*self._floats, weight=1.0 - decay)
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)


def _columns(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Pairs:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
