"""Validation: the kept net on the samples that choose the best epoch."""

import torch
from torch.nn import functional

from src.data.packed import PackedSplit
from src.data.readers import MAPPED, Reading
from src.model.inference import ACTIVATIONS, logits_of
from src.training import own_metrics
from src.training.learner import Learner
from src.training.step import hit_count


def validate(
    learner: Learner, data: PackedSplit, reading: Reading = MAPPED, own_metric: str | None = None
) -> dict[str, float]:
    """{"loss", "accuracy", "macro_f1"} of the kept net in evaluation mode on all of `data`, and the
    metric of that name in src/yours/metrics.py."""
    kept: list[torch.Tensor] = []
    sums = torch.zeros(2, device=learner.device)
    classes = len(data.meta["classes"])
    # Per class: hits, predictions, samples. Counts, which can be summed over processes.
    counts = torch.zeros(3, classes, dtype=torch.int64, device=learner.device)
    for logits, labels in logits_of(
        learner.kept_model, data, learner.device, learner.mean, learner.std, reading
    ):
        if own_metric:
            kept.append(logits)
        loss = learner.criterion(logits, labels)
        sums += torch.stack([loss * len(labels), hit_count(logits, labels)])
        predicted = functional.one_hot(logits.argmax(dim=1), classes)
        actual = functional.one_hot(labels, classes)
        counts += torch.stack([predicted * actual, predicted, actual]).sum(dim=1)
    (loss, correct), count = sums.tolist(), len(data)
    hits, predicted, actual = counts.cpu().double()  # MPS has no float64
    # F1 = 2 x hits / (predictions + samples); unknown for a class with neither.
    named = predicted + actual
    f1 = 2 * hits[named > 0] / named[named > 0]
    found = {"loss": loss / count, "accuracy": correct / count, "macro_f1": f1.mean().item()}
    if own_metric:
        probabilities = ACTIVATIONS[learner.criterion.activation](torch.cat(kept).cpu().numpy())
        found[own_metric] = own_metrics.value(own_metric, data.labels, probabilities, "val")
    return found
