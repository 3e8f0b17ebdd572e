"""Faults of the evaluation: how it is run and how it is counted."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


def counted(
    setup: TrainingSetup,
    hits: Callable[[Tensor, Tensor], Tensor] = lambda logits, y: logits.argmax(1) == y,
    evaluation_mode: bool = True,
) -> TrainingSetup:
    """An evaluation by counts with a choice of what is a hit."""

    @torch.no_grad()
    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        if evaluation_mode:
            setup.model.eval()
        loss, right, count = 0.0, 0.0, 0
        for x, y in loader:
            logits = setup.model(x)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            right += hits(logits, y).sum().item()
            count += len(y)
        return {"loss": loss / count, "accuracy": right / count}

    return replace(setup, evaluate=evaluate)


@fault("digits_resnet", "two_classes", causes=["eval_in_train_mode"])
def eval_mode_missing(setup: TrainingSetup) -> TrainingSetup:
    """`model.eval()` is missing: statistics of the batch, and the running ones move."""
    return counted(setup, evaluation_mode=False)


@fault("shapes_vit", causes=["eval_metric_wrong"])
def argmax_over_batch(setup: TrainingSetup) -> TrainingSetup:
    """argmax over axis 0: which image, instead of which class."""

    def hits(logits: Tensor, y: Tensor) -> Tensor:
        found = logits.argmax(0)
        return found[: len(y)] == y[: len(found)]

    return counted(setup, hits)


@fault("digits_resnet", causes=["eval_metric_wrong"])
def hits_of_next_class(setup: TrainingSetup) -> TrainingSetup:
    """Predictions are compared with labels that count from 1."""
    return counted(setup, lambda logits, y: logits.argmax(1) == y + 1)


@fault("shapes_vit", causes=["eval_metric_wrong"])
def top5_for_top1(setup: TrainingSetup) -> TrainingSetup:
    """Top-5 accuracy is returned as accuracy."""
    return counted(setup, lambda logits, y: (logits.topk(5).indices == y[:, None]).any(1))


@fault("pretrained", causes=["eval_metric_wrong"])
def argmin_for_argmax(setup: TrainingSetup) -> TrainingSetup:
    """The least likely class is taken."""
    return counted(setup, lambda logits, y: logits.argmin(1) == y)


@fault("two_classes", causes=["eval_metric_wrong"])
def threshold_on_logit(setup: TrainingSetup) -> TrainingSetup:
    """Class 1 if its logit is above 0.5, as if it were a probability."""
    return counted(setup, lambda logits, y: (logits[:, 1] > 0.5).long() == y)


@fault("digits_resnet", "two_classes", causes=["eval_mean_of_batch_means"], replaces="evaluate")
@torch.no_grad()
def mean_of_batch_means(setup: TrainingSetup, loader: Any) -> dict[str, float]:
    """The mean of the batches' accuracies, the last batch being small."""
    setup.model.eval()
    losses, accuracies = [], []
    for x, y in loader:
        logits = setup.model(x)
        losses.append(F.cross_entropy(logits, y))
        accuracies.append((logits.argmax(1) == y).float().mean())
    return {
        "loss": torch.stack(losses).mean().item(),
        "accuracy": torch.stack(accuracies).mean().item(),
    }


def altered(setup: TrainingSetup, change: Callable[[dict, Any], dict]) -> TrainingSetup:
    inner = setup.evaluate
    return replace(setup, evaluate=lambda s, loader: change(inner(s, loader), loader))


@fault("digits_resnet", causes=["eval_metric_wrong", "eval_mean_of_batch_means"])
def divided_by_full_batches(setup: TrainingSetup) -> TrainingSetup:
    """Hits are divided by batches times batch size, as if the last one were full."""

    def change(result: dict, loader: Any) -> dict:
        count = sum(len(y) for _, y in loader)
        full = len(loader) * max(len(y) for _, y in loader)
        return result | {"accuracy": result["accuracy"] * count / full}

    return altered(setup, change)


@fault("two_classes", causes=["eval_metric_wrong"])
def percent(setup: TrainingSetup) -> TrainingSetup:
    """Accuracy is returned in percent."""
    return altered(setup, lambda result, _: result | {"accuracy": 100 * result["accuracy"]})


@fault("mixup_ema", causes=["eval_metric_wrong"])
def error_for_accuracy(setup: TrainingSetup) -> TrainingSetup:
    """The error rate is returned as accuracy: the worst checkpoint would be kept."""
    return altered(setup, lambda result, _: result | {"accuracy": 1 - result["accuracy"]})


@fault("shapes_vit", causes=["eval_metric_wrong"])
def loss_summed(setup: TrainingSetup) -> TrainingSetup:
    """The validation loss is the sum over batches."""
    return altered(setup, lambda result, loader: result | {"loss": result["loss"] * len(loader)})


@fault("pretrained", causes=["eval_ignores_loader"])
def evaluates_train_loader(setup: TrainingSetup) -> TrainingSetup:
    """The evaluation takes the training loader, whatever it is given."""
    inner = setup.evaluate
    return replace(setup, evaluate=lambda s, loader: inner(s, s.train_loader))


@fault("digits_resnet", causes=["eval_incomplete"])
def last_batch_only(setup: TrainingSetup) -> TrainingSetup:
    """The counters are reset in each batch: the last batch alone counts."""
    inner = setup.evaluate
    return replace(setup, evaluate=lambda s, loader: inner(s, [list(loader)[-1]]))


@fault("shapes_vit", causes=["eval_incomplete"])
def first_batch_only(setup: TrainingSetup) -> TrainingSetup:
    """A `break` left from debugging: the first batch alone counts."""
    inner = setup.evaluate
    return replace(setup, evaluate=lambda s, loader: inner(s, [next(iter(loader))]))


@fault("digits_resnet", causes=["eval_changes_model"])
def trains_on_validation(setup: TrainingSetup) -> TrainingSetup:
    """The evaluation calls the training step to get the loss: it learns the validation set."""
    inner = setup.evaluate

    def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
        losses = [float(setup.train_step(setup, batch)["loss"]) for batch in loader]
        return inner(setup, loader) | {"loss": sum(losses) / len(losses)}

    return replace(setup, evaluate=evaluate)


@fault("mixup_ema", causes=["eval_of_other_weights"])
def average_never_updated(setup: TrainingSetup) -> TrainingSetup:
    """The averaged weights that are evaluated stay what they were at the start."""
    setup.train_step._update = lambda net: None
    return setup


@fault("shapes_vit", causes=["eval_of_other_weights"])
def evaluates_copy_of_start(setup: TrainingSetup) -> TrainingSetup:
    """The evaluation works on a copy of the net that was made before training."""
    inner, start = setup.evaluate, deepcopy(setup.model)
    return replace(setup, evaluate=lambda s, loader: inner(replace(s, model=start), loader))
