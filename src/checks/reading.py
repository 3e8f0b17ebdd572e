"""What a training gives, in whichever form: batches, items, targets, outputs, reported losses."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

MODE_DEPENDENT = (_BatchNorm, _DropoutNd)  # layers that do something else in evaluation


def split_batch(batch: Any) -> tuple[Any, Any]:
    """(inputs, targets) of what a loader yields or a data set holds."""
    if isinstance(batch, dict):
        values = list(batch.values())
        return values[0], values[1]
    return batch[0], batch[1]


def inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch, or of an item, as floats on the CPU."""
    return to_tensor(split_batch(batch)[0]).detach().cpu().float()


def labels_of(batch: Any) -> Tensor:
    """The targets of a batch as int64 labels on the CPU."""
    return as_labels(split_batch(batch)[1])


def as_labels(targets: Any, single: bool = False) -> Tensor:
    """Targets as int64 labels on the CPU, of shares the largest. `single`: targets of one item."""
    found = to_tensor(targets).detach().cpu()
    if single:
        found = found[None]
    if found.ndim > 1 and found.shape[-1] > 1:
        return found.reshape(len(found), -1).argmax(dim=1)
    return found.reshape(len(found)).long() if found.ndim else found.reshape(1).long()


def are_shares(targets: Any) -> bool:
    """Whether targets are shares of the classes, not labels."""
    return getattr(targets, "ndim", 1) == 2 and targets.shape[1] > 1


def to_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))


def rows_as_bytes(x: Tensor) -> list[bytes]:
    """Each row of `x` as bytes: equal ones are the same row, value for value."""
    return [row.numpy().tobytes() for row in x]


def reported_loss(out: Any) -> float:
    """The loss in what train_step returned; NaN where there is none."""
    loss = out.get("loss", float("nan")) if hasattr(out, "get") else out
    try:
        return float(loss.detach().float().mean()) if isinstance(loss, Tensor) else float(loss)
    except (TypeError, ValueError):
        return float("nan")


def logits_of(output: Any) -> Tensor:
    """The logits in what a net returned; a tuple's or dict's first tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    for part in output if isinstance(output, list | tuple) else ():
        if isinstance(part, Tensor):
            return part
    raise TypeError(f"the model returned a {type(output).__name__}, not a tensor of logits")


def predict(logits: Tensor) -> Tensor:
    """Classes by logits B x K; one logit decides between two classes."""
    return (logits.reshape(len(logits)) > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)


def device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def graph_of(roots: Iterable[Any]) -> set[Any]:
    """The nodes of the autograd graphs that end in `roots` (grad_fn of tensors, or None)."""
    todo, nodes = list(roots), set()
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo.extend(earlier for earlier, _ in node.next_functions)
    return nodes


def held_by(optimizer: Any) -> set[Tensor]:
    """The tensors that an optimizer steps (a tensor's hash is its identity)."""
    return {p for group in optimizer.param_groups for p in group["params"]}


def counted(count: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def named(names: list[str], shown: int = 3) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")
