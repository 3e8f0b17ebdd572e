"""Faults in the network and the loss."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.unseen.bases import (
    MLP,
    cells_depthwise,
    digits_mlp,
    gratings_cnn,
    shapes_transformer,
)
from tests.zoo.unseen.bases_transfer import transfer_frozen
from tests.zoo.unseen.healthy_small import two_classes_plain_sgd
from tests.zoo.unseen.more_bases import PatchMixer, tiles_bce
from tests.zoo.unseen.parts import PatchTransformer, SmallCNN
from tests.zoo.unseen.registry import fault


def replace_model(setup, model, optimizer):
    """Give the set-up another net with its own optimizer and cosine schedule."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    setup.model, setup.optimizer = model, optimizer
    setup.scheduler = cosine(optimizer, setup.declared["total_steps"])


@fault(gratings_cnn, "softmax inside the model, before cross-entropy")
def softmax_in_model(setup):
    """The classifier ends in nn.Softmax although CrossEntropyLoss follows."""
    setup.model.head = nn.Sequential(setup.model.head, nn.Softmax(dim=-1))


class BatchSoftmaxMLP(MLP):
    """Normalises along the wrong dimension."""

    def forward(self, x):
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        x = self.dropout(F.relu(self.fc2(x)))
        return F.log_softmax(self.fc3(x), dim=0)


class RawMLP(MLP):
    """Ends in the last linear layer."""

    def forward(self, x):
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        return self.fc3(self.dropout(F.relu(self.fc2(x))))


@fault(digits_mlp, "softmax over the batch dimension instead of the classes")
def log_softmax_over_batch(setup):
    """log_softmax with dim=0, so the probabilities of one class sum to 1 over the batch."""
    setup.model.__class__ = BatchSoftmaxMLP


@fault(digits_mlp, "NLLLoss gets raw logits, log_softmax is missing")
def nll_on_logits(setup):
    """NLLLoss on raw outputs: the loss falls without bound below zero."""
    setup.model.__class__ = RawMLP


@fault(gratings_cnn, "activation (ReLU) on the logits")
def relu_on_logits(setup):
    """A helper that builds a layer with its ReLU was also used for the last layer."""
    setup.model.head = nn.Sequential(setup.model.head, nn.ReLU())


@fault(tiles_bce, "sigmoid applied twice: in the model and in BCEWithLogits")
def sigmoid_before_bce_with_logits(setup):
    """The net returns sigmoid(logits), and the loss applies the sigmoid again."""
    setup.model.head.append(nn.Sigmoid())


@fault(digits_mlp, "all weights start at the same constant (zero): symmetric initialisation")
def zero_initialised(setup):
    """An init helper sets every weight to 0 instead of every bias."""
    for parameter in setup.model.parameters():
        nn.init.zeros_(parameter)


@fault(digits_mlp, "weights start far too large (std 1): loss at the start far above log K")
def normal_one_initialised(setup):
    """nn.init.normal_ with its default std of 1 for each layer; plain SGD."""
    for module in setup.model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), 0.05, momentum=0.9)


@fault(digits_mlp, "dropout far too high (0.9): keep probability given as drop probability")
def keep_probability_as_dropout(setup):
    """A port from a framework whose dropout takes the share to keep."""
    setup.model.dropout.p = 0.9


@fault(shapes_transformer, "examples of a batch influence each other (attention over the batch)")
def attention_over_batch(setup):
    """TransformerEncoderLayer without batch_first gets (N, tokens, width)."""
    torch.manual_seed(12)
    model = PatchTransformer(3, 5, 32, batch_first=False)
    replace_model(setup, model, torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05))


class HiddenLayers(nn.Module):
    """A CNN whose convolutions stand in a plain list."""

    def __init__(self):
        super().__init__()
        net = SmallCNN(3, 8, (4, 4, 4))
        self.layers = [net.features[:3], net.features[3:6], net.features[6:]]
        self.head = nn.Linear(4, 8)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


@fault(gratings_cnn, "layers in a Python list: not registered, not trained, not saved")
def layers_in_plain_list(setup):
    """A list instead of nn.ModuleList hides the convolutions from parameters()."""
    torch.manual_seed(11)
    model = HiddenLayers()
    replace_model(setup, model, torch.optim.SGD(model.parameters(), 0.05, 0.9))


class DetachedMixer(PatchMixer):
    """Patches and convolutions run, then their result is cut from the graph."""

    def forward(self, x):
        x = self.patches(x)
        for spatial, mlp in zip(self.spatial, self.mlps, strict=True):
            x = x + mlp(spatial(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x.detach().mean((2, 3)))


@fault(tiles_bce, "no gradient reaches the body: features are detached")
def detached_features(setup):
    """A .detach() from a visualisation was left between the body and the head."""
    setup.model.__class__ = DetachedMixer


class HalfTransformer(PatchTransformer):
    """Its encoder runs without a graph."""

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        with torch.no_grad():
            tokens = self.encoder(tokens)
        return self.head(self.norm(tokens).mean(1))


@fault(shapes_transformer, "part of the network gets no gradient: computed under no_grad")
def encoder_under_no_grad(setup):
    """The encoder runs under torch.no_grad from when it was meant to be a frozen extractor."""
    setup.model.__class__ = HalfTransformer


@fault(gratings_cnn, "BatchNorm uses batch statistics in evaluation (no running statistics)")
def batchnorm_without_running_statistics(setup):
    """track_running_stats=False everywhere, with a validation set sorted by class."""
    for module in setup.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    order = setup.val_data.labels.argsort(kind="stable")
    setup.val_data.pictures = setup.val_data.pictures[order]
    setup.val_data.labels = setup.val_data.labels[order]


class BackwardFocal(nn.Module):
    """Focal loss that weighs by p instead of 1 - p."""

    def forward(self, logits, target):
        ce = F.cross_entropy(logits, target, reduction="none")
        return (torch.exp(-ce) ** 2 * ce).mean()


@fault(cells_depthwise, "focal weight the wrong way round: wrong answers get the lowest loss")
def focal_weight_reversed(setup):
    """The custom focal loss multiplies by p**gamma."""
    setup.loss_fn = BackwardFocal()


class Rewarded(nn.Module):
    """Hand-written cross-entropy without its minus."""

    def forward(self, logits, target):
        return logits.log_softmax(1).gather(1, target[:, None]).mean()


@fault(gratings_cnn, "sign of the loss: training maximises the cross-entropy")
def loss_without_minus(setup):
    """A hand-written cross-entropy forgot the minus."""
    setup.loss_fn = Rewarded()


@fault(two_classes_plain_sgd, "loss summed over the batch with an lr meant for the mean")
def loss_summed(setup):
    """reduction='sum' makes gradients 24 times as large; no clipping, no normalisation."""
    setup.loss_fn = nn.CrossEntropyLoss(reduction="sum")


@fault(transfer_frozen, "one class is left out of the loss (ignore_index=0)")
def class_zero_ignored(setup):
    """ignore_index=0 was copied from code where 0 is the background or the padding."""
    setup.loss_fn = nn.CrossEntropyLoss(ignore_index=0)
