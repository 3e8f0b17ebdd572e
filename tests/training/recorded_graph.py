"""CUDA's graphs on a CPU: a capture records the operations without an effect, a replay does them
again in the memory of the capture. So a mistake that leaves a number or a tensor out of the graph
shows without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.launches import NEW_MEMORY, is_view, tensors_of

# It changes the statistics that it gets, and its schema says nothing of it.
BATCHNORM = "aten.native_batch_norm.default"


class RecordedGraph:
    replays = 0

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        type(self).replays += 1
        with torch.no_grad():
            for func, args, kwargs, result in self.operations:
                again = func(*args, **kwargs)
                pairs = zip(tensors_of(result), tensors_of(again), strict=True)
                for held, made in pairs:
                    if held is not made:
                        held.copy_(made)


class Recorder(TorchDispatchMode):
    """Notes what is done, and what it changed of tensors that were there before."""

    def __init__(self, graph: RecordedGraph):
        super().__init__()
        self.graph = graph
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = str(func), kwargs or {}
        assert "_local_scalar_dense" not in name, "a capture must not wait for a number"
        if func._schema.is_mutable or name == BATCHNORM:
            self.before += [(one, one.clone()) for one in tensors_of((args, kwargs))]
        result = func(*args, **kwargs)
        if name.startswith("aten.") and not is_view(func) and not name.startswith(NEW_MEMORY):
            self.graph.operations.append((func, args, kwargs, result))
        return result


@contextmanager
def captured(graph: RecordedGraph, **_: Any) -> Iterator[None]:
    with Recorder(graph) as recorder:
        yield
    with torch.no_grad():
        for changed, value in reversed(recorder.before):
            changed.copy_(value)


class Stream:
    def __init__(self, device: Any = None):
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass


def replace_cuda(patch: pytest.MonkeyPatch) -> None:
    """Let a step graph work on the CPU."""
    RecordedGraph.replays = 0
    for name, stand_in in {
        "CUDAGraph": RecordedGraph,
        "graph": captured,
        "Stream": Stream,
        "stream": lambda _: nullcontext(),
        "current_stream": Stream,
        "get_rng_state": lambda _: torch.get_rng_state(),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda _: None,
    }.items():
        patch.setattr(torch.cuda, name, stand_in)
