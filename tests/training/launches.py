"""How many operations the host starts on a device: what a small net keeps its GPU waiting for.

A launch is an operation of ATen that reaches the device's kernels, below autograd, with a tensor
of that device in or out. What only describes memory is none: a view, a new tensor that nobody has
written to. A multi-tensor operation (`_foreach_...`, `_fused_...`) is one. On a GPU some launches
are two or three kernels; the number of launches is that on a CPU."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NEW_MEMORY = ("aten.empty", "aten.new_empty", "aten.detach")


class Launches(TorchDispatchMode):
    """Counts, inside `with`, the launches on a kind of device by their names."""

    def __init__(self, device: str):
        super().__init__()
        self.device, self.found = device, Counter[str]()

    @property
    def count(self) -> int:
        return self.found.total()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        is_memory = is_view(func) or name.startswith(NEW_MEMORY)
        tensors = tensors_of((args, kwargs, result))
        if name.startswith("aten.") and not is_memory:
            self.found[name] += any(tensor.device.type == self.device for tensor in tensors)
        return result


def is_view(func: Any) -> bool:
    """Whether the result shares the memory of an argument that is not written to."""
    return any(
        value.alias_info is not None and not value.alias_info.is_write
        for value in func._schema.returns
    )


def tensors_of(values: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
