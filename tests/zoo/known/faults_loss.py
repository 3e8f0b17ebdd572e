"""Faults in the loss function and in the targets of mixup. The loss takes logits B x K and labels
B, with mixup targets B x K."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.known.bases import MixupEmaStep
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


@fault("digits_resnet")
def nll_on_logits(setup: TrainingSetup) -> TrainingSetup:
    """NLLLoss, which wants log-probabilities, on plain logits: unbounded from below."""
    return replace(setup, loss_fn=nn.NLLLoss())


@fault("shapes_vit", "two_classes")
def reduction_sum(setup: TrainingSetup) -> TrainingSetup:
    """The loss is summed over the batch."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(reduction="sum"))


@fault("mixup_ema")
def sum_over_batch_in_mixup(setup: TrainingSetup) -> TrainingSetup:
    """The soft-target loss is summed over the batch."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")
    return replace(setup, loss_fn=loss)


@fault("two_classes")
def sign_flipped(setup: TrainingSetup) -> TrainingSetup:
    """The loss is negated: training makes the net worse."""
    return replace(setup, loss_fn=lambda logits, y: -F.cross_entropy(logits, y))


@fault("digits_resnet", "two_classes")
def softmax_in_loss(setup: TrainingSetup) -> TrainingSetup:
    """The loss function applies softmax before it calls cross-entropy."""
    return replace(setup, loss_fn=lambda logits, y: F.cross_entropy(logits.softmax(-1), y))


@fault("digits_resnet")
def loss_softmax_over_batch(setup: TrainingSetup) -> TrainingSetup:
    """NLL of a log-softmax over axis 0."""
    return replace(setup, loss_fn=lambda logits, y: F.nll_loss(F.log_softmax(logits, 0), y))


@fault("shapes_vit")
def labels_shifted_in_loss(setup: TrainingSetup) -> TrainingSetup:
    """Labels are moved by one, as if the data set still counted from 1."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return replace(setup, loss_fn=lambda logits, y: loss(logits, (y - 1) % 30))


@fault("digits_resnet")
def smoothing_undeclared(setup: TrainingSetup) -> TrainingSetup:
    """Smoothing of 0.3, although none is declared."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(label_smoothing=0.3))


@fault("digits_resnet")
def class_weight_zero(setup: TrainingSetup) -> TrainingSetup:
    """The weight of one class is 0: whatever the net says about it costs nothing."""
    weight = torch.ones(10)
    weight[3] = 0
    return replace(setup, loss_fn=nn.CrossEntropyLoss(weight=weight))


@fault("digits_resnet")
def mse_to_label_number(setup: TrainingSetup) -> TrainingSetup:
    """Mean squared error between the logits and the label's number."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(logits, y.float().unsqueeze(1).expand_as(logits))

    return replace(setup, loss_fn=loss)


@fault("two_classes")
def loss_rebuilt(setup: TrainingSetup) -> TrainingSetup:
    """The value of the loss is packed into a new tensor; the graph is lost."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(F.cross_entropy(logits, y).item(), requires_grad=True)

    return replace(setup, loss_fn=loss)


@fault("two_classes", "mixup_ema")
def mean_taken_twice(setup: TrainingSetup) -> TrainingSetup:
    """The mean loss is divided by the batch size once more."""
    inner = setup.loss_fn
    return replace(setup, loss_fn=lambda logits, y: inner(logits, y) / len(y))


@fault("two_classes")
def loss_times_thousand(setup: TrainingSetup) -> TrainingSetup:
    """A loss weight of 1000 left over from another task."""
    return replace(setup, loss_fn=lambda logits, y: 1000 * F.cross_entropy(logits, y))


@fault("digits_resnet")
def first_row_only(setup: TrainingSetup) -> TrainingSetup:
    """Only the first image of the batch enters the loss."""
    return replace(setup, loss_fn=lambda logits, y: F.cross_entropy(logits[:1], y[:1]))


@fault("shapes_vit")
def class_ignored(setup: TrainingSetup) -> TrainingSetup:
    """ignore_index=0, from segmentation: class 0 never counts."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1))


@fault("digits_resnet")
def sigmoid_twice(setup: TrainingSetup) -> TrainingSetup:
    """BCEWithLogitsLoss on outputs that went through a sigmoid already."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.sigmoid(), F.one_hot(y, 10).float())

    return replace(setup, loss_fn=loss)


@fault("digits_resnet")
def labels_broadcast(setup: TrainingSetup) -> TrainingSetup:
    """`log_p[:, y]` instead of `log_p[arange, y]`: every row is held against all labels."""
    return replace(setup, loss_fn=lambda logits, y: -logits.log_softmax(1)[:, y].mean())


@fault("two_classes")
def penalty_dominates(setup: TrainingSetup) -> TrainingSetup:
    """A penalty on the logits with a weight of 10 holds them at 0."""
    return replace(
        setup, loss_fn=lambda logits, y: F.cross_entropy(logits, y) + 10 * logits.square().mean()
    )


@fault("shapes_vit")
def logits_clamped(setup: TrainingSetup) -> TrainingSetup:
    """Logits are clamped to -1..1 "for stability"."""
    return replace(setup, loss_fn=lambda logits, y: F.cross_entropy(logits.clamp(-1, 1), y))


@fault("two_classes")
def loss_of_argmax(setup: TrainingSetup) -> TrainingSetup:
    """Mean squared error between predicted and true class: argmax has no gradient."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        predicted = logits.argmax(1).float().requires_grad_()
        return F.mse_loss(predicted, y.float())

    return replace(setup, loss_fn=loss)


@fault("digits_resnet")
def log_of_probability(setup: TrainingSetup) -> TrainingSetup:
    """The logarithm of probabilities in float16: a small one becomes 0, its log -inf."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        p = (logits * 20).softmax(1).half().float()
        return F.nll_loss(p.log(), y)

    return replace(setup, loss_fn=loss)


@fault("shapes_vit")
def random_targets(setup: TrainingSetup) -> TrainingSetup:
    """Targets are drawn anew at random: `randint_like` left from a dry run."""
    generator = torch.Generator().manual_seed(0)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, torch.randint(0, 30, y.shape, generator=generator))

    return replace(setup, loss_fn=loss)


@fault("digits_resnet")
def labels_in_wrong_order(setup: TrainingSetup) -> TrainingSetup:
    """Labels are sorted before they meet the logits."""
    return replace(setup, loss_fn=lambda logits, y: F.cross_entropy(logits, y.sort().values))


@fault("two_classes")
def hinge_sign(setup: TrainingSetup) -> TrainingSetup:
    """A margin loss with the margin on the wrong side: it is content with the wrong class."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        right = logits.gather(1, y[:, None]).squeeze(1)
        wrong = logits.gather(1, 1 - y[:, None]).squeeze(1)
        return F.softplus(right - wrong).mean()

    return replace(setup, loss_fn=loss)


class TargetNotMixed(MixupEmaStep):
    def __call__(self, setup: TrainingSetup, batch: tuple) -> dict:
        x, y = batch
        share = self.beta.sample().item()
        mixed = share * x + (1 - share) * x[torch.randperm(len(x))]
        setup.optimizer.zero_grad()
        setup.model.train()
        loss = setup.loss_fn(setup.model(mixed), F.one_hot(y, self.classes).float())
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        self._update(setup.model)
        return {"loss": loss.item()}


@fault("mixup_ema")
def mixup_target_not_mixed(setup: TrainingSetup) -> TrainingSetup:
    """Mixup mixes the images and leaves the targets as they were."""
    step = TargetNotMixed(setup.model, 12, alpha=0.2, decay=0.98)
    return replace(setup, train_step=step, evaluate=step.evaluate, save=step.save, load=step.load)
