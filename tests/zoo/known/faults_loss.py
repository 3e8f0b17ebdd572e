"""Faults in the loss function and in the targets of mixup. The loss takes logits B x K and labels
B, with mixup targets B x K."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.known.bases import MixupEmaStep
from tests.zoo.known.catalogue import fault
from tests.zoo.known.complete_setup import TrainingSetup


@fault("digits_resnet", causes=["loss_expects_log_probabilities"])
def nll_on_logits(setup: TrainingSetup) -> TrainingSetup:
    """NLLLoss, which wants log-probabilities, on plain logits: unbounded from below."""
    return replace(setup, loss_fn=nn.NLLLoss())


@fault("shapes_vit", "two_classes", causes=["loss_reduction_sum"])
def reduction_sum(setup: TrainingSetup) -> TrainingSetup:
    """The loss is summed over the batch."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(reduction="sum"))


@fault("mixup_ema", causes=["loss_reduction_sum"])
def sum_over_batch_in_mixup(setup: TrainingSetup) -> TrainingSetup:
    """The soft-target loss is summed over the batch."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")
    return replace(setup, loss_fn=loss)


@fault("two_classes", causes=["loss_sign"], replaces="loss_fn")
def sign_flipped(logits: Tensor, y: Tensor) -> Tensor:
    """The loss is negated: training makes the net worse."""
    return -F.cross_entropy(logits, y)


@fault("digits_resnet", "two_classes", causes=["activation_before_loss"], replaces="loss_fn")
def softmax_in_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The loss function applies softmax before it calls cross-entropy."""
    return F.cross_entropy(logits.softmax(-1), y)


@fault("digits_resnet", causes=["loss_over_batch_axis"], replaces="loss_fn")
def loss_softmax_over_batch(logits: Tensor, y: Tensor) -> Tensor:
    """NLL of a log-softmax over axis 0."""
    return F.nll_loss(F.log_softmax(logits, 0), y)


@fault("shapes_vit", causes=["loss_label_shifted"])
def labels_shifted_in_loss(setup: TrainingSetup) -> TrainingSetup:
    """Labels are moved by one, as if the data set still counted from 1."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return replace(setup, loss_fn=lambda logits, y: loss(logits, (y - 1) % 30))


@fault("digits_resnet", causes=["label_smoothing_differs"])
def smoothing_undeclared(setup: TrainingSetup) -> TrainingSetup:
    """Smoothing of 0.3, although none is declared."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(label_smoothing=0.3))


@fault("digits_resnet", causes=["class_weight_zero"])
def class_weight_zero(setup: TrainingSetup) -> TrainingSetup:
    """The weight of one class is 0: whatever the net says about it costs nothing."""
    weight = torch.ones(10)
    weight[3] = 0
    return replace(setup, loss_fn=nn.CrossEntropyLoss(weight=weight))


@fault("digits_resnet", causes=["wrong_loss"], replaces="loss_fn")
def mse_to_label_number(logits: Tensor, y: Tensor) -> Tensor:
    """Mean squared error between the logits and the label's number."""
    return F.mse_loss(logits, y.float().unsqueeze(1).expand_as(logits))


@fault("two_classes", causes=["backward_missing", "gradient_blocked"], replaces="loss_fn")
def loss_rebuilt(logits: Tensor, y: Tensor) -> Tensor:
    """The value of the loss is packed into a new tensor; the graph is lost."""
    return torch.tensor(F.cross_entropy(logits, y).item(), requires_grad=True)


@fault("two_classes", "mixup_ema", causes=["loss_scale"])
def mean_taken_twice(setup: TrainingSetup) -> TrainingSetup:
    """The mean loss is divided by the batch size once more."""
    inner = setup.loss_fn
    return replace(setup, loss_fn=lambda logits, y: inner(logits, y) / len(y))


@fault("two_classes", causes=["loss_scale"], replaces="loss_fn")
def loss_times_thousand(logits: Tensor, y: Tensor) -> Tensor:
    """A loss weight of 1000 left over from another task."""
    return 1000 * F.cross_entropy(logits, y)


@fault("digits_resnet", causes=["step_ignores_part_of_batch"], replaces="loss_fn")
def first_row_only(logits: Tensor, y: Tensor) -> Tensor:
    """Only the first image of the batch enters the loss."""
    return F.cross_entropy(logits[:1], y[:1])


@fault("shapes_vit", causes=["class_weight_zero"])
def class_ignored(setup: TrainingSetup) -> TrainingSetup:
    """ignore_index=0, from segmentation: class 0 never counts."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1))


@fault("digits_resnet", causes=["activation_before_loss"], replaces="loss_fn")
def sigmoid_twice(logits: Tensor, y: Tensor) -> Tensor:
    """BCEWithLogitsLoss on outputs that went through a sigmoid already."""
    return F.binary_cross_entropy_with_logits(logits.sigmoid(), F.one_hot(y, 10).float())


@fault(
    "digits_resnet",
    causes=["loss_over_batch_axis", "wrong_loss", "loss_ignores_labels"],
    replaces="loss_fn",
)
def labels_broadcast(logits: Tensor, y: Tensor) -> Tensor:
    """`log_p[:, y]` instead of `log_p[arange, y]`: every row is held against all labels."""
    return -logits.log_softmax(1)[:, y].mean()


@fault("two_classes", causes=["wrong_loss", "loss_bounded", "loss_scale"], replaces="loss_fn")
def penalty_dominates(logits: Tensor, y: Tensor) -> Tensor:
    """A penalty on the logits with a weight of 10 holds them at 0."""
    return F.cross_entropy(logits, y) + 10 * logits.square().mean()


@fault("shapes_vit", causes=["loss_bounded", "activation_before_loss"], replaces="loss_fn")
def logits_clamped(logits: Tensor, y: Tensor) -> Tensor:
    """Logits are clamped to -1..1 "for stability"."""
    return F.cross_entropy(logits.clamp(-1, 1), y)


@fault(
    "two_classes", causes=["backward_missing", "gradient_blocked", "wrong_loss"], replaces="loss_fn"
)
def loss_of_argmax(logits: Tensor, y: Tensor) -> Tensor:
    """Mean squared error between predicted and true class: argmax has no gradient."""
    predicted = logits.argmax(1).float().requires_grad_()
    return F.mse_loss(predicted, y.float())


@fault("digits_resnet", causes=["loss_not_finite"], replaces="loss_fn")
def log_of_probability(logits: Tensor, y: Tensor) -> Tensor:
    """The logarithm of probabilities in float16: a small one becomes 0, its log -inf."""
    p = (logits * 20).softmax(1).half().float()
    return F.nll_loss(p.log(), y)


@fault("shapes_vit", causes=["loss_ignores_labels", "targets_changed_in_step"])
def random_targets(setup: TrainingSetup) -> TrainingSetup:
    """Targets are drawn anew at random: `randint_like` left from a dry run."""
    generator = torch.Generator().manual_seed(0)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, torch.randint(0, 30, y.shape, generator=generator))

    return replace(setup, loss_fn=loss)


@fault(
    "digits_resnet", causes=["targets_changed_in_step", "loss_label_shifted"], replaces="loss_fn"
)
def labels_in_wrong_order(logits: Tensor, y: Tensor) -> Tensor:
    """Labels are sorted before they meet the logits."""
    return F.cross_entropy(logits, y.sort().values)


@fault("two_classes", causes=["loss_sign", "loss_label_shifted"], replaces="loss_fn")
def hinge_sign(logits: Tensor, y: Tensor) -> Tensor:
    """A margin loss with the margin on the wrong side: it is content with the wrong class."""
    right = logits.gather(1, y[:, None]).squeeze(1)
    wrong = logits.gather(1, 1 - y[:, None]).squeeze(1)
    return F.softplus(right - wrong).mean()


class TargetNotMixed(MixupEmaStep):
    def mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return super().mixed(x, y)[0], F.one_hot(y, self.classes).float()


@fault("mixup_ema", causes=["inputs_changed_in_step", "targets_changed_in_step"])
def mixup_target_not_mixed(setup: TrainingSetup) -> TrainingSetup:
    """Mixup mixes the images and leaves the targets as they were."""
    step = TargetNotMixed(setup.model, 12, alpha=0.2, decay=0.98)
    return replace(setup, train_step=step, evaluate=step.evaluate, save=step.save, load=step.load)
