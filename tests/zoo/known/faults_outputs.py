"""Faults in what the model gives: activations after the head, scale, number of outputs, rows."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.zoo.known.catalogue import after, before, fault
from tests.zoo.known.complete_setup import TrainingSetup


@fault("digits_resnet", "shapes_vit", causes=["activation_before_loss"])
def softmax_output(setup: TrainingSetup) -> TrainingSetup:
    """The net ends in a softmax; cross-entropy applies its own."""
    return after(setup, nn.Softmax(dim=1))


@fault("shapes_vit", causes=["activation_before_loss"])
def sigmoid_output(setup: TrainingSetup) -> TrainingSetup:
    """The net ends in a sigmoid."""
    return after(setup, torch.sigmoid)


@fault("digits_resnet", "two_classes", causes=["activation_before_loss"])
def log_softmax_before_bce(setup: TrainingSetup) -> TrainingSetup:
    """The net ends in log_softmax, and the loss is BCE: sigmoid of it never exceeds a half."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        target = nn.functional.one_hot(y, logits.shape[1]).float()
        return nn.functional.binary_cross_entropy_with_logits(logits, target)

    return replace(after(setup, nn.LogSoftmax(dim=1)), loss_fn=loss)


@fault("two_classes", causes=["activation_before_loss"])
def relu_output(setup: TrainingSetup) -> TrainingSetup:
    """A ReLU stands between the last layer and the loss."""
    return after(setup, torch.relu)


@fault("shapes_vit", causes=["activation_before_loss"])
def tanh_output(setup: TrainingSetup) -> TrainingSetup:
    """The net ends in tanh: logits between -1 and 1 cannot make 30 classes certain."""
    return after(setup, torch.tanh)


@fault("digits_resnet", causes=["activation_before_loss", "samples_mixed"])
def batchnorm_output(setup: TrainingSetup) -> TrainingSetup:
    """BatchNorm without scale after the last layer: logits of fixed size, tied to the batch."""
    return after(setup, nn.BatchNorm1d(10, affine=False))


@fault("digits_resnet", causes=["temperature", "loss_scale"])
def temperature_high(setup: TrainingSetup) -> TrainingSetup:
    """Logits divided by a temperature of 100."""
    return after(setup, lambda logits: logits / 100)


@fault("two_classes", causes=["temperature", "loss_scale", "bad_initialisation"])
def temperature_low(setup: TrainingSetup) -> TrainingSetup:
    """Logits multiplied by 100, as if a temperature of 0.01 for embeddings had been copied."""
    return after(setup, lambda logits: logits * 100)


@fault("digits_resnet", causes=["activation_before_loss", "temperature"])
def normalised_output(setup: TrainingSetup) -> TrainingSetup:
    """Logits normalised to length 1 as in a cosine classifier, without its scale."""
    return after(setup, lambda logits: nn.functional.normalize(logits, dim=1))


@fault("digits_resnet", causes=["num_classes"])
def too_few_outputs(setup: TrainingSetup) -> None:
    """The head has one output too few: the last class has no logit."""
    setup.model.reset_classifier(9)
    setup.optimizer.param_groups[0]["params"] = list(setup.model.parameters())


@fault("shapes_vit", causes=["num_classes"])
def thousand_outputs(setup: TrainingSetup) -> None:
    """The head was left at ImageNet's 1000 outputs."""
    setup.model.reset_classifier(1000)
    setup.optimizer.param_groups[0]["params"] = list(setup.model.parameters())


@fault("two_classes", causes=["num_classes", "input_ignored", "activation_before_loss"])
def single_output(setup: TrainingSetup) -> TrainingSetup:
    """One output as for a binary loss, spread over both classes: always 50:50."""
    return after(setup, lambda logits: logits[:, :1].expand(-1, 2))


@fault("two_classes", causes=["samples_mixed"])
def rows_mixed_at_input(setup: TrainingSetup) -> TrainingSetup:
    """view instead of permute: channels of different images are put together."""

    def swap_axes(x: Tensor) -> Tensor:
        return x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)

    return before(setup, swap_axes)


@fault("digits_resnet", causes=["samples_mixed"])
def rows_mixed_at_output(setup: TrainingSetup) -> TrainingSetup:
    """The logits come out as K x B and are brought to B x K by view instead of a transpose."""
    return after(setup, lambda logits: logits.t().reshape(logits.shape))


@fault("shapes_vit", causes=["samples_mixed"])
def rows_reversed(setup: TrainingSetup) -> TrainingSetup:
    """The outputs come in the reverse order of the images."""
    return after(setup, lambda logits: logits.flip(0))


@fault("digits_resnet", causes=["samples_mixed"])
def batch_mean_removed(setup: TrainingSetup) -> TrainingSetup:
    """Images are centred by the mean of their batch, in evaluation too."""
    return before(setup, lambda x: x - x.mean((0, 2, 3), keepdim=True))


@fault("shapes_vit", causes=["samples_mixed", "input_ignored"])
def batch_pooled(setup: TrainingSetup) -> TrainingSetup:
    """The mean is taken over the batch instead of the positions: all rows are alike."""
    return after(setup, lambda logits: logits.mean(0, keepdim=True).expand_as(logits))


@fault("two_classes", causes=["samples_mixed", "loss_over_batch_axis"])
def softmax_over_batch(setup: TrainingSetup) -> TrainingSetup:
    """A log-softmax over axis 0, the batch, at the end of the net."""
    return after(setup, lambda logits: logits.log_softmax(0))


@fault("digits_resnet", causes=["input_ignored"])
def input_overwritten(setup: TrainingSetup) -> TrainingSetup:
    """The forward pass fills a buffer of zeros and forgets to copy the images into it."""
    return before(setup, torch.zeros_like)


@fault("shapes_vit", causes=["channel_ignored", "input_ignored"])
def input_masked(setup: TrainingSetup) -> TrainingSetup:
    """An inverted mask hides the image and keeps a border of one pixel."""

    def border(x: Tensor) -> Tensor:
        mask = torch.ones_like(x)
        mask[:, :, 1:-1, 1:-1] = 0
        return x * mask

    return before(setup, border)
