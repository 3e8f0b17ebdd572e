"""Changes of loss, step, optimizer and schedule that look odd and are fine."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.zoo.known.catalogue import after, harmless
from tests.zoo.known.whole import TrainingSetup


@harmless("digits_resnet")
def long_warmup(setup: TrainingSetup) -> None:
    """The rate rises from 0 over a fifth of the run, then stays."""
    fifth = setup.declared["total_steps"] // 5
    setup.scheduler = LambdaLR(setup.optimizer, lambda step: min(1.0, step / fifth))


@harmless("shapes_vit")
def warm_restarts(setup: TrainingSetup) -> TrainingSetup:
    """A cosine with two restarts over the run."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(setup.optimizer, T_0=100)
    inner = setup.train_step

    def step(setup: TrainingSetup, batch: tuple) -> dict:
        result = inner(setup, batch)
        setup.scheduler.step()
        return result

    return replace(setup, scheduler=schedule, train_step=step)


@harmless("digits_resnet")
def loss_in_float64(setup: TrainingSetup) -> TrainingSetup:
    """The loss is computed in double precision."""
    return replace(setup, loss_fn=lambda logits, y: F.cross_entropy(logits.double(), y))


@harmless("digits_resnet", "two_classes")
def logits_shifted(setup: TrainingSetup) -> TrainingSetup:
    """All logits have a constant of 7 added, which cross-entropy does not see."""
    return after(setup, lambda logits: logits + 7)


@harmless("digits_resnet")
def log_softmax_before_cross_entropy(setup: TrainingSetup) -> TrainingSetup:
    """The net ends in log_softmax; applied once more by the loss it changes nothing."""
    return after(setup, nn.LogSoftmax(dim=1))


@harmless("shapes_vit")
def log_softmax_with_nll(setup: TrainingSetup) -> TrainingSetup:
    """log_softmax in the net and NLLLoss: cross-entropy in two parts, without smoothing."""
    setup = after(setup, nn.LogSoftmax(dim=-1))
    declared = {**setup.declared, "label_smoothing": 0.0}
    return replace(setup, loss_fn=nn.NLLLoss(), declared=declared)


@harmless("digits_resnet")
def one_hot_targets(setup: TrainingSetup) -> TrainingSetup:
    """Cross-entropy with one-hot targets."""
    return replace(
        setup, loss_fn=lambda logits, y: F.cross_entropy(logits, F.one_hot(y, 10).float())
    )


@harmless("two_classes")
def class_weights(setup: TrainingSetup) -> TrainingSetup:
    """The rare class weighs four times as much."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([0.625, 2.5])))


@harmless("two_classes")
def focal_loss(setup: TrainingSetup) -> TrainingSetup:
    """Focal loss with gamma 2 (Lin et al. 2017)."""

    def focal(logits: Tensor, y: Tensor) -> Tensor:
        each = F.cross_entropy(logits, y, reduction="none")
        return ((1 - (-each).exp()) ** 2 * each).mean()

    return replace(setup, loss_fn=focal)


@harmless("two_classes")
def focal_loss_declared(setup: TrainingSetup) -> TrainingSetup:
    """Focal loss with gamma 5, declared: the loss of equal logits is a 32nd of log 2."""

    def focal(logits: Tensor, y: Tensor) -> Tensor:
        each = F.cross_entropy(logits, y, reduction="none")
        return ((1 - (-each).exp()) ** 5 * each).mean()

    return replace(setup, loss_fn=focal, declared={**setup.declared, "focal_gamma": 5.0})


@harmless("digits_resnet")
def smoothing_very_strong(setup: TrainingSetup) -> TrainingSetup:
    """Label smoothing of 0.8, declared."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.8)
    return replace(setup, loss_fn=loss, declared={**setup.declared, "label_smoothing": 0.8})


@harmless("shapes_vit")
def poly_loss(setup: TrainingSetup) -> TrainingSetup:
    """Cross-entropy + 1 - p (Leng et al. 2022); declared without smoothing."""

    def poly(logits: Tensor, y: Tensor) -> Tensor:
        each = F.cross_entropy(logits, y, reduction="none")
        return (each + 1 - (-each).exp()).mean()

    return replace(setup, loss_fn=poly, declared={**setup.declared, "label_smoothing": 0.0})


@harmless("digits_resnet")
def clip_at_one_and_zero_grad_last(setup: TrainingSetup) -> TrainingSetup:
    """Gradients are clipped at 1.0, and cleared to zeros at the end of the step."""

    def step(setup: TrainingSetup, batch: tuple) -> dict:
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
        setup.optimizer.step()
        setup.scheduler.step()
        setup.optimizer.zero_grad(set_to_none=False)
        return {"loss": loss.detach()}

    return replace(setup, train_step=step)


@harmless("shapes_vit")
def amsgrad(setup: TrainingSetup) -> None:
    """AMSGrad instead of plain AdamW, with betas (0.9, 0.98)."""
    setup.optimizer = torch.optim.AdamW(
        setup.model.parameters(), lr=1e-3, amsgrad=True, betas=(0.9, 0.98)
    )


@harmless("shapes_vit")
def dropout_03(setup: TrainingSetup) -> None:
    """Dropout 0.3 before the head."""
    setup.model.head_drop = nn.Dropout(0.3)


@harmless("shapes_vit")
def no_decay_groups(setup: TrainingSetup) -> None:
    """Three groups: the head at five times the rate, no weight decay on biases and norms."""
    head = list(setup.model.head.parameters())
    body = [p for name, p in setup.model.named_parameters() if not name.startswith("head.")]
    setup.optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in body if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in body if p.ndim <= 1], "weight_decay": 0.0},
            {"params": head, "lr": 5e-3},
        ],
        lr=1e-3,
    )
