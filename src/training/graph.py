"""The forward and backward pass of a step as a CUDA graph: one call starts it, where a small net
keeps its GPU waiting for the host to start hundreds of operations.

The same kernels run in the same order on the same numbers, so that no bit changes; the first replay
is compared with the step itself. Optimizer, schedule and average stay outside: their numbers (rate,
bias correction, decay) change from step to step, and a graph would keep those of its capture."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from src.data.batches import Batch
from src.plumbing.errors import InputError
from src.training.learner import Learner, Sums
from src.training.loss import OWN
from src.training.step import gradients

# Steps as usual before the capture, which fill caches of torch and cuDNN (as in PyTorch's notes).
WARM_UP = 3


def step_graph(learner: Learner, params: Mapping[str, Any]) -> "StepGraph | None":
    """The graph that `machine.cuda_graph` allows. None where it cannot be exact: without a GPU,
    with torch.compile, with fp16, whose scaler looks at the gradients, and for a net or loss of
    one's own, whose Python a graph would leave out."""
    allowed = params["machine.cuda_graph"] == "auto" and learner.device.type == "cuda"
    plain = params["compile"] == "none" and params["precision"] != "fp16"
    if not (allowed and plain) or OWN in (params["model"], params["loss"]):
        return None
    return StepGraph(learner)


class StepGraph:
    """Does what `gradients` does. After some steps as usual a batch of the same shapes and dtypes
    is copied to where the graph reads it, and the graph runs; any other batch goes the usual way,
    as all do where the step draws random numbers or waits for the GPU."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.why_not = ""  # why the steps go the usual way
        self._forget()

    def _forget(self) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        self.done = 0
        self.frozen = self.learner.is_frozen

    def __call__(self, batch: Batch) -> Sums:
        if self.frozen != self.learner.is_frozen:  # other gradients are wanted
            self._forget()
        if self.why_not:
            return gradients(self.learner, batch)
        if self.graph is None:
            self.done += 1
            if self.done < WARM_UP:
                return self._as_usual(batch)
            return self._capture(batch)
        if [_kind(part) for part in batch] != [_kind(part) for part in self.inputs]:
            return gradients(self.learner, batch)
        return self._replay(batch)

    def _as_usual(self, batch: Batch) -> Sums:
        """The step on the stream of the capture, whose caches it fills."""
        if self.done == 1:
            self.stream = torch.cuda.Stream(self.learner.device)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            sums = gradients(self.learner, batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return sums

    def _replay(self, batch: Batch) -> Sums:
        assert self.graph is not None
        for held, part in zip(self.inputs, batch, strict=True):
            held.copy_(part)
        self.graph.replay()
        # A step that went the usual way left others.
        for parameter, gradient in zip(self.learner.learning(), self.gradients, strict=True):
            parameter.grad = gradient
        return self.sums

    def _capture(self, batch: Batch) -> Sums:
        """The step as usual, then the same one by a new graph, which is kept if no bit differs."""
        buffers = list(self.learner.model.buffers())
        before = [buffer.clone() for buffer in buffers]
        sums = self._watched(batch)
        if self.why_not:
            print(f"cuda_graph: off, since {self.why_not}", flush=True)
            return sums
        learning = self.learner.learning()
        usual = [parameter.grad for parameter in learning]
        after = [buffer.clone() for buffer in buffers]
        _set(buffers, before)
        self.inputs = torch.zeros_like(batch[0]), torch.zeros_like(batch[1])
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on: one that reads batches pins memory.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.sums = gradients(self.learner, self.inputs)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:150]
            raise InputError(
                f"params.yaml: machine.cuda_graph must be off: the step of this net cannot be "
                f"captured ({reason})"
            ) from None
        self.graph, self.gradients = graph, [parameter.grad for parameter in learning]
        found = self._replay(batch)
        if _same([*found, *self.gradients, *buffers], [*sums, *usual, *after]):
            return found
        self.graph, self.why_not = None, "its bits differ from those of the step itself"
        print(f"cuda_graph: off, since {self.why_not}", flush=True)
        _set(buffers, after)
        for parameter, gradient in zip(learning, usual, strict=True):
            parameter.grad = gradient
        return sums

    def _watched(self, batch: Batch) -> Sums:
        """The step as usual; `why_not` says what of it no graph can do."""
        device = self.learner.device
        drawn = torch.get_rng_state(), torch.cuda.get_rng_state(device)
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                sums = self._as_usual(batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        if any("synchronizing CUDA operation" in str(one.message) for one in seen):
            self.why_not = "the step waits for the GPU"
        if not _same(drawn, (torch.get_rng_state(), torch.cuda.get_rng_state(device))):
            self.why_not = "the net draws random numbers, as dropout does"
        return sums


def _kind(part: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return part.shape, part.dtype


def _set(targets: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _same(some: Any, others: Any) -> bool:
    """Whether tensors, or None in place of one, are equal one by one."""
    return all(
        one is other or (one is not None and other is not None and torch.equal(one, other))
        for one, other in zip(some, others, strict=True)
    )
