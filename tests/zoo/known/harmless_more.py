"""Changes of model, data and evaluation that look odd and are fine."""

import math
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from tests.zoo.known.bases import digits_step
from tests.zoo.known.bases_more import IMAGENET_MEAN, IMAGENET_STD, SmallNet
from tests.zoo.known.catalogue import harmless, labels_of, load_from, map_data
from tests.zoo.known.whole import TrainingSetup


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
    """Grey pictures are normalised with the mean of ImageNet's statistics."""
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    own, deviation = setup.declared["mean"][0], setup.declared["std"][0]
    setup = map_data(setup, lambda i, x, y: ((x * deviation + own - mean) / std, y))
    return replace(setup, declared={**setup.declared, "mean": [mean], "std": [std]})


@harmless("digits_resnet", "two_classes")
def little_contrast(setup: TrainingSetup) -> TrainingSetup:
    """Pictures as of fog: bytes from 120 to 135, normalised by their own statistics."""
    mean, std = (torch.tensor(setup.declared[key]).view(-1, 1, 1) for key in ("mean", "std"))

    def dull(_: int, x: Tensor, y: int) -> tuple[Tensor, int]:
        return (120 + 15 * (x * std + mean)).round() / 255, y

    setup = map_data(setup, dull)
    pictures = torch.stack([setup.train_data[i][0] for i in range(len(setup.train_data))])
    own, deviation = pictures.mean((0, 2, 3)), pictures.std((0, 2, 3))
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
