"""Healthy set-ups: a battery must keep quiet about all of them.
`python -m tests.zoo.known.verify_healthy` trains each one and shows what it learns."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import timm
import torch

from tests.zoo.known import healthy_parts as parts
from tests.zoo.known.bases import declare, load_all, save_all
from tests.zoo.known.catalogue import Factory
from tests.zoo.known.complete_setup import TrainingSetup

EPOCHS = 20
STEPS = 400  # at least, of the optimizer: less is no training for the slower of them
Options = dict[str, Any]
PATCHES = {"img_size": 32, "patch_size": 8}
SWIN: Options = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 32}
SWIN |= {"depths": (2, 2), "num_heads": (2, 4)}


@dataclass(frozen=True)
class Healthy:
    """One set-up in words; healthy_parts.py says what the words mean."""

    net: str
    data: str = "shapes"
    size: int = 32
    classes: int = 8
    count: int = 30  # training images a class
    loss: str = "ce"
    optimizer: str = "adamw"
    lr: float = 1e-3
    schedule: str = "none"
    batch: int = 32
    accumulate: int = 1
    style: str = "class"  # of the data sets and loaders
    extra: str = "none"  # in the step
    evaluate: str = "counts"
    mean: str = "own"
    shift: int = 2  # pixels, augmentation
    imbalance: float = 1.0
    options: Options = field(default_factory=dict)


def build(spec: Healthy) -> TrainingSetup:
    """A fresh set-up, the same in each call."""
    torch.manual_seed(1000 + sum(map(ord, spec.net)))
    train, val = parts.splits(spec.data, spec.size, spec.classes, spec.count)
    if spec.imbalance > 1:
        train = parts.thinned(train, spec.imbalance)
        val = parts.thinned(val, spec.imbalance)
    mean, std = parts.statistics(spec.mean, train[0])
    data = parts.data_and_loaders(spec.style, train, val, mean, std, spec.batch, spec.shift)
    net = timm.create_model(
        spec.net, num_classes=spec.classes, in_chans=train[0].shape[1], **spec.options
    )
    if spec.extra == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    loss, smoothing = parts.loss_by_name(spec.loss, torch.bincount(train[1]))
    optimizer = parts.optimizer_by_name(spec.optimizer, net, spec.lr)
    steps = max(EPOCHS * len(data[2]) // spec.accumulate, STEPS)
    scheduler = parts.schedule_by_name(spec.schedule, optimizer, steps)
    per_step = not spec.schedule.startswith(("epoch", "plateau"))
    step: Any = parts.Step(net, spec.classes, spec.extra, per_step, spec.accumulate)
    evaluate: Any = parts.EVALUATIONS[spec.evaluate]
    save, load = save_all, load_all
    if spec.extra == "optimizer_calls":
        step = parts.step_by_optimizer
    if spec.extra == "ema":
        average = step.average

        def both(setup: TrainingSetup) -> TrainingSetup:
            return replace(setup, model=torch.nn.ModuleList([setup.model, average]))

        inner = evaluate

        def save(setup: TrainingSetup) -> bytes:
            return save_all(both(setup))

        def load(setup: TrainingSetup, data: bytes, strict: bool = True) -> None:
            load_all(both(setup), data, strict)

        def evaluate(setup: TrainingSetup, loader: Any) -> dict[str, float]:
            return inner(replace(setup, model=average.module), loader)

    declared = declare(
        spec.classes,
        mean,
        std,
        steps,
        accumulate=spec.accumulate,
        label_smoothing=smoothing,
        mixup=1.0 if spec.extra in ("mixup", "cutmix") else 0.0,
    )
    parts_of_loop = step, evaluate, save, load
    return TrainingSetup(net, loss, optimizer, scheduler, *data, *parts_of_loop, declared)


# Nets with a stride of 32 leave one pixel of a 32 px image: BatchNorm then sees only the batch,
# so these run on batches of 32 and more, or at 64 px.
SPECS = [
    Healthy("test_resnet", "digits", 16, 10, schedule="warmup", extra="clip"),
    Healthy("test_resnet", "digits", 32, 10, optimizer="sgd", lr=0.05, schedule="cosine",
            style="tensors", evaluate="whole"),
    Healthy("test_resnet", classes=48, count=12, loss="smooth", style="list", evaluate="lists"),
    Healthy("test_resnet", "codes", 16, 100, 12, lr=3e-3, style="tensors", schedule="onecycle"),
    Healthy("test_resnet", classes=5, count=60, loss="weighted", imbalance=8, mean="imagenet"),
    Healthy("test_resnet", classes=6, extra="mixup", loss="soft", evaluate="whole"),
    Healthy("test_byobnet", "digits", 16, 10, lr=2e-3, loss="functional", style="list",
            evaluate="lists", shift=1),
    Healthy("test_byobnet", classes=2, count=100, optimizer="plain_sgd", lr=0.1, style="tensors"),
    Healthy("test_byobnet", classes=10, style="workers", schedule="steps", lr=2e-3),
    Healthy("test_efficientnet", "digits", 32, 10, optimizer="adam", lr=3e-3, evaluate="criterion"),
    Healthy("test_efficientnet", classes=12, accumulate=2, batch=24, lr=2e-3, schedule="linear"),
    Healthy("test_efficientnet_gn", classes=6, batch=8, lr=2e-3, optimizer="adam", style="list"),
    Healthy("test_efficientnet_ln", "grey", 24, 8, loss="focal", lr=2e-3, mean="half"),
    Healthy("test_convnext", "digits", 32, 10, loss="bce", evaluate="criterion", style="tensors"),
    Healthy("test_convnext", classes=24, count=16, loss="timm_smooth", extra="ema", lr=2e-3),
    Healthy("test_convnext2", classes=8, optimizer="lion", lr=2e-4, schedule="warmup"),
    Healthy("test_nfnet", classes=4, size=32, optimizer="sgd", lr=0.02, extra="clip_value"),
    Healthy("test_mambaout", "digits", 24, 10, optimizer="nadamw", lr=2e-3, style="list",
            evaluate="lists"),
    Healthy("test_vit", "digits", 32, 10, style="tensors", schedule="polynomial",
            options=PATCHES),
    Healthy("test_vit", classes=3, count=80, accumulate=4, batch=8, extra="clip", options=PATCHES),
    Healthy("test_vit2", "codes", 32, 60, 12, lr=2e-3, loss="z_loss", options=PATCHES),
    Healthy("test_vit3", classes=16, extra="cutmix", loss="soft", count=24, options=PATCHES),
    Healthy("test_vit_relpos", "grey", 32, 4, 60, mean="unit", options={"img_size": 32}),
    Healthy("test_coatnet", classes=6, schedule="cosine", options={"img_size": 32}),
    Healthy("vit_tiny_patch16_224", classes=10, lr=5e-4, extra="clip",
            options=PATCHES | {"depth": 3}),
    Healthy("deit_tiny_patch16_224", "digits", 32, 10, lr=5e-4, loss="smooth",
            options=PATCHES | {"depth": 3}),
    Healthy("swin_tiny_patch4_window7_224", classes=12, lr=2e-3, options=SWIN),
    Healthy("resnet10t", "digits", 32, 10, optimizer="sgd", lr=0.1, schedule="warmup",
            style="tensors"),
    Healthy("resnet10t", classes=2, count=80, imbalance=5, style="balanced", evaluate="whole"),
    Healthy("resnet18", classes=8, optimizer="sgd", lr=0.05, schedule="epoch_steps"),
    Healthy("resnet18", "digits", 16, 10, extra="optimizer_calls", lr=5e-4),
    Healthy("mobilenetv3_small_050", size=64, classes=4, lr=2e-3, batch=16, style="list"),
    Healthy("mobilenetv4_conv_small_035", size=64, classes=4, lr=1e-3, batch=24),
    Healthy("convnext_atto", classes=10, lr=5e-4, style="tensors", evaluate="whole"),
    Healthy("convnextv2_atto", "digits", 32, 10, lr=5e-4, schedule="plateau"),
    Healthy("regnetx_002", classes=20, count=20, lr=2e-3),
    Healthy("regnety_002", "digits", 32, 10, optimizer="rmsprop", lr=5e-4),
    Healthy("edgenext_xx_small", size=64, classes=5, lr=1e-3),
    Healthy("ghostnet_050", size=64, classes=4, lr=2e-3),
    Healthy("efficientnet_b0", size=48, classes=4, lr=1e-3, batch=24, extra="channels_last"),
    Healthy("lcnet_035", "codes", 64, 30, 12, lr=3e-3, style="tensors"),
    Healthy("repvgg_a0", classes=6, optimizer="sgd", lr=0.02),
    Healthy("starnet_s050", size=64, classes=6, lr=2e-3),
    Healthy("cs3darknet_s", classes=12, optimizer="sgd", lr=0.05, loss="bce_sum"),
    Healthy("hgnetv2_b0", classes=8, lr=1e-3, loss="margin"),
    Healthy("pvt_v2_b0", classes=6, lr=5e-4),
    Healthy("mobilevit_xxs", size=64, classes=4, lr=2e-3),
    Healthy("densenet121", classes=4, count=24, lr=1e-3, batch=16),
]  # fmt: skip


def healthy() -> dict[str, Factory]:
    """The set-ups by name: the net, and its number where the net occurs again."""
    found: dict[str, Factory] = {}
    for spec in SPECS:
        same = sum(name.partition("#")[0] == spec.net for name in found)
        found[f"{spec.net}#{same + 1}" if same else spec.net] = partial(build, spec)
    return found
