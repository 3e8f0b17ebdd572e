"""Changes that look odd and are fine: of loss, step, optimizer and schedule, of model, data and
evaluation."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, WeightedRandomSampler

from tests.zoo.known.bases import IMAGENET_MEAN, IMAGENET_STD, SmallNet, digits_step
from tests.zoo.known.catalogue import after, harmless, labels_of, load_from, map_data
from tests.zoo.known.complete_setup import TrainingSetup


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


@harmless("digits_resnet", replaces="loss_fn")
def loss_in_float64(logits: Tensor, y: Tensor) -> Tensor:
    """The loss is computed in double precision."""
    return F.cross_entropy(logits.double(), y)


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


@harmless("digits_resnet", replaces="loss_fn")
def one_hot_targets(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with one-hot targets."""
    return F.cross_entropy(logits, F.one_hot(y, 10).float())


@harmless("two_classes")
def class_weights(setup: TrainingSetup) -> TrainingSetup:
    """The rare class weighs four times as much."""
    return replace(setup, loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([0.625, 2.5])))


def focal(logits: Tensor, y: Tensor, gamma: int) -> Tensor:
    each = F.cross_entropy(logits, y, reduction="none")
    return ((1 - (-each).exp()) ** gamma * each).mean()


@harmless("two_classes")
def focal_loss(setup: TrainingSetup) -> TrainingSetup:
    """Focal loss with gamma 2 (Lin et al. 2017)."""
    return replace(setup, loss_fn=partial(focal, gamma=2))


@harmless("two_classes")
def focal_loss_declared(setup: TrainingSetup) -> TrainingSetup:
    """Focal loss with gamma 5, declared: the loss of equal logits is a 32nd of log 2."""
    loss = partial(focal, gamma=5)
    return replace(setup, loss_fn=loss, declared={**setup.declared, "focal_gamma": 5.0})


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


@harmless("digits_resnet", replaces="train_step")
def clip_at_one_and_zero_grad_last(setup: TrainingSetup, batch: tuple) -> dict:
    """Gradients are clipped at 1.0, and cleared to zeros at the end of the step."""
    setup.model.train()
    loss = setup.loss_fn(setup.model(batch[0]), batch[1])
    loss.backward()
    nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
    setup.optimizer.step()
    setup.scheduler.step()
    setup.optimizer.zero_grad(set_to_none=False)
    return {"loss": loss.detach()}


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


@harmless("pretrained")
def body_frozen_declared(setup: TrainingSetup) -> TrainingSetup:
    """Only the head of the pretrained net is trained, and that is declared."""
    body = [name for name, _ in setup.model.named_parameters() if not name.startswith("fc.")]
    for name, parameter in setup.model.named_parameters():
        parameter.requires_grad = name not in body
    optimizer = torch.optim.SGD(setup.model.fc.parameters(), lr=0.1, momentum=0.9)
    return replace(setup, optimizer=optimizer, declared={**setup.declared, "frozen": body})


@harmless("pretrained")
def norm_in_eval_mode(setup: TrainingSetup) -> TrainingSetup:
    """All BatchNorm layers of the pretrained net stay in evaluation mode, their weights are frozen
    and declared."""
    norms = [m for m in setup.model.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = list(setup.declared["frozen"])
    for name, module in setup.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
            frozen += [f"{name}.weight", f"{name}.bias"]

    def step(setup: TrainingSetup, batch: tuple) -> dict:
        setup.model.train()
        for norm in norms:
            norm.eval()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    return replace(setup, train_step=step, declared={**setup.declared, "frozen": frozen})


@harmless("two_classes")
def orthogonal_initialisation(setup: TrainingSetup) -> None:
    """Orthogonal weights, biases of 0.1."""
    for module in setup.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain=math.sqrt(2))
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.1)


@harmless("digits_resnet", "shapes_vit")
def head_starts_at_zero(setup: TrainingSetup) -> None:
    """Weights and biases of the head start at 0, as in several transformer recipes."""
    nn.init.zeros_(setup.model.get_classifier().weight)
    nn.init.zeros_(setup.model.get_classifier().bias)


@harmless("digits_resnet")
def val_loader_shuffled(setup: TrainingSetup) -> TrainingSetup:
    """The validation loader shuffles: its order does not matter."""
    order = torch.Generator().manual_seed(6)
    loader = DataLoader(setup.val_data, 60, shuffle=True, generator=order)
    return replace(setup, val_loader=loader)


@harmless("digits_resnet")
def train_drop_last(setup: TrainingSetup) -> TrainingSetup:
    """The training loader drops the last, smaller batch."""
    loader = load_from(setup.train_loader, setup.train_data, drop_last=True)
    return replace(setup, train_loader=loader)


@harmless("two_classes")
def balanced_sampler(setup: TrainingSetup) -> TrainingSetup:
    """A sampler with replacement draws both classes equally often."""
    labels = labels_of(setup.train_data)
    weights = [1.0 if y == 0 else 4.0 for y in labels]
    random = torch.Generator().manual_seed(8)
    sampler = WeightedRandomSampler(weights, len(labels), generator=random)
    loader = load_from(setup.train_loader, setup.train_data, shuffle=False, sampler=sampler)
    return replace(setup, train_loader=loader)


@harmless("digits_resnet")
def large_batch(setup: TrainingSetup) -> TrainingSetup:
    """Batches of 256."""
    loader = load_from(setup.train_loader, setup.train_data, batch_size=256)
    return replace(setup, train_loader=loader)


@harmless("digits_resnet")
def buffer_unused(setup: TrainingSetup) -> None:
    """A buffer that the forward pass does not use."""
    setup.model.register_buffer("class_counts", torch.zeros(10))


@harmless("digits_resnet")
def imagenet_statistics_on_grey(setup: TrainingSetup) -> TrainingSetup:
    """Grey images are normalised with the mean of ImageNet's statistics."""
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    own, deviation = setup.declared["mean"][0], setup.declared["std"][0]
    setup = map_data(setup, lambda i, x, y: ((x * deviation + own - mean) / std, y))
    return replace(setup, declared={**setup.declared, "mean": [mean], "std": [std]})


@harmless("digits_resnet", "two_classes")
def little_contrast(setup: TrainingSetup) -> TrainingSetup:
    """Images as of fog: bytes from 120 to 135, normalised by their own statistics."""
    mean, std = (torch.tensor(setup.declared[key]).view(-1, 1, 1) for key in ("mean", "std"))

    def dull(_: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        return (120 + 15 * (x * std + mean)).round() / 255, y

    setup = map_data(setup, dull)
    images = torch.stack([setup.train_data[i][0] for i in range(len(setup.train_data))])
    own, deviation = images.mean((0, 2, 3)), images.std((0, 2, 3))
    shape = (-1, 1, 1)
    setup = map_data(setup, lambda i, x, y: ((x - own.view(shape)) / deviation.view(shape), y))
    declared = {**setup.declared, "mean": own.tolist(), "std": deviation.tolist()}
    return replace(setup, declared=declared)


@harmless("two_classes")
def head_without_bias(setup: TrainingSetup) -> None:
    """The head has no bias, and its weights start small."""
    head = nn.Linear(setup.model.head.in_features, 2, bias=False)
    nn.init.normal_(head.weight, std=1e-3)
    setup.model.head = head
    group = setup.optimizer.param_groups[0]
    group["params"] = list(setup.model.parameters())


class Tied(nn.Module):
    """The same convolution twice in a row, shared."""

    def __init__(self, net: SmallNet):
        super().__init__()
        self.net = net
        net.features.append(nn.Sequential(*list(net.features[2].children())[:3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@harmless("two_classes")
def layer_shared(setup: TrainingSetup) -> TrainingSetup:
    """One block is used twice; its parameters are counted once."""
    return replace(setup, model=Tied(setup.model))


@harmless("digits_resnet")
def averaged_in_evaluation(setup: TrainingSetup) -> TrainingSetup:
    """The evaluation works on torch's averaged model, saved with the rest."""
    average = torch.optim.swa_utils.AveragedModel(
        setup.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    inner = (setup.evaluate, setup.save, setup.load)
    setup.optimizer.register_step_post_hook(lambda *_: average.update_parameters(setup.model))
    setup.evaluate = lambda s, loader: inner[0](replace(s, model=average), loader)
    setup.save = lambda s: inner[1](replace(s, model=nn.ModuleList([s.model, average])))
    setup.load = lambda s, data: inner[2](replace(s, model=nn.ModuleList([s.model, average])), data)
    return setup


@harmless("digits_resnet")
def trained_before(setup: TrainingSetup) -> TrainingSetup:
    """The weights were trained for thirty steps already: the loss at the start is low."""
    model = deepcopy(setup.model)
    trainee = replace(setup, model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=2e-3))
    loader = load_from(setup.train_loader, setup.train_data)
    for _, batch in zip(range(30), loader, strict=False):
        digits_step(replace(trainee, scheduler=deepcopy(setup.scheduler)), batch)
    setup.model.load_state_dict(model.state_dict())
    return setup
