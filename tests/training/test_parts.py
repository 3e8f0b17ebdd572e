"""The parts of a training recipe against torch, timm and scikit-learn used by hand."""

import copy
import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src import checks
from src.base.randomness import balanced_order
from src.data.batches import to_input, training_batches
from src.data.packed import PackedSplit
from src.model import create as model_module
from src.model.device import prepare_device, told_in_one_line
from src.plumbing.errors import InputError
from src.training.as_checked import checked_setup
from src.training.average import create_average, last_decay, told_of_warm_up
from src.training.loss import Loss, create_loss
from src.training.optimizer import create_optimizer, create_scheduler
from src.training.setup import Setup, _require_what_it_needs
from src.training.step import train_step
from src.training.validation import validate
from tests.conftest import run_stage, set_params
from tests.training.test_training import (
    CPU,
    PARAMS,
    Interrupting,
    Killed,
    Splits,
    checkpoint_in,
    make_setup,
    make_training,
    run,
    same_state,
)

LOGITS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(64) % 5
SOFT = torch.softmax(torch.randn(64, 5, generator=torch.Generator().manual_seed(1)).double(), 1)


def test_cross_entropy_is_torchs() -> None:
    for targets in (LABELS, SOFT):
        expected = nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, targets)
        assert torch.equal(Loss(label_smoothing=0.1)(LOGITS, targets), expected)


def test_binary_cross_entropy_is_timms() -> None:
    """timm's, which smooths otherwise, without smoothing; the sum over classes."""
    expected = BinaryCrossEntropy(smoothing=0.0, sum_classes=True)(LOGITS, LABELS)
    assert Loss("bce")(LOGITS, LABELS).item() == pytest.approx(expected.item(), abs=1e-12)


def test_focal_loss_is_that_of_the_paper() -> None:
    p = LOGITS.softmax(1)[torch.arange(64), LABELS]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert Loss("focal", focal_gamma=2)(LOGITS, LABELS).item() == pytest.approx(expected.item())
    plain = functional.cross_entropy(LOGITS, LABELS).item()
    assert Loss("focal", focal_gamma=0)(LOGITS, LABELS).item() == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 0.99, 1.0, 2.0])
@pytest.mark.parametrize("gap", [0.0, 5.0, 15.0, 17.5, 40.0, 200.0])
@pytest.mark.parametrize("right", [True, False])
def test_the_slope_of_the_focal_loss_is_finite_and_right(
    gamma: float, gap: float, right: bool
) -> None:
    """Against the derivative in float64, also for a picture that the net is sure of."""
    logits = torch.tensor([[gap, 0.0], [0.5, -0.5]], requires_grad=True)
    labels = torch.tensor([0 if right else 1, 1])
    value = Loss("focal", focal_gamma=gamma)(logits, labels)
    value.backward()
    wanted = logits.detach().double().requires_grad_()
    log_p = wanted.log_softmax(1)[torch.arange(2), labels]
    log_rest = wanted.log_softmax(1)[torch.arange(2), 1 - labels]  # two classes: 1 - p
    expected = (-(gamma * log_rest).exp() * log_p).mean()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert logits.grad is not None
    assert wanted.grad is not None
    assert torch.allclose(logits.grad.double(), wanted.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_from_gamma_one_on_the_focal_loss_has_the_bits_of_its_formula(gamma: float) -> None:
    logits = (20 * LOGITS.float()).requires_grad_()
    Loss("focal", focal_gamma=gamma)(logits, LABELS).backward()
    plain = logits.detach().clone().requires_grad_()
    log_p = plain.log_softmax(dim=1)
    hard = (1 - log_p.exp()) ** gamma
    (-(functional.one_hot(LABELS, 5) * hard * log_p).sum(dim=1)).mean().backward()
    assert logits.grad is not None
    assert plain.grad is not None
    assert torch.equal(logits.grad, plain.grad)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
def test_labels_and_their_shares_are_one(name: str) -> None:
    loss = Loss(name, 0.0, 2.0, torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
    shares = functional.one_hot(LABELS, 5).double()
    assert loss(LOGITS, LABELS).item() == pytest.approx(loss(LOGITS, shares).item(), abs=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_even_guess_costs_what_the_formula_says(name: str, smoothing: float) -> None:
    if name == "focal" and smoothing:
        pytest.skip("focal has no smoothing")
    even = {"cross_entropy": math.log(5), "bce": 5 * math.log(2), "focal": 0.64 * math.log(5)}
    value = Loss(name, smoothing)(torch.zeros(64, 5), LABELS).item()
    assert value == pytest.approx(even[name], rel=1e-6)


def test_class_weights() -> None:
    labels, names = np.array([0] * 6 + [1] * 3 + [2]), ["a", "b", "c"]
    params = {"loss": "cross_entropy", "label_smoothing": 0.0, "focal_gamma": 2.0}
    balanced = create_loss({**params, "class_weights": "balanced"}, labels, names)
    assert balanced.class_weights is not None
    expected = torch.tensor([10 / 18, 10 / 9, 10 / 3])
    assert torch.allclose(balanced.class_weights, expected)
    listed = create_loss({**params, "class_weights": [1.0, 2.0, 4.0]}, labels, names)
    weights = listed.class_weights
    assert weights is not None
    assert torch.allclose(weights / weights[0], torch.tensor([1.0, 2.0, 4.0]))
    assert weights[torch.tensor(labels)].mean().item() == pytest.approx(1)
    with pytest.raises(InputError, match="one number for each of the 3 classes"):
        create_loss({**params, "class_weights": [1.0]}, labels, names)


class Plain(nn.Module):
    """A net without BatchNorm, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 3)
        ).double()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.net(pictures.double())


def plain_setup(train: PackedSplit, **options: Any) -> Setup:
    setup = make_setup(train, **{**PARAMS, "optimizer": "sgd", "lr": 0.05, **options})
    setup.model = Plain()
    setup.forward = setup.model
    setup.optimizer = create_optimizer(setup.model, {**PARAMS, "optimizer": "sgd"}, 0.05)
    return setup


@pytest.mark.parametrize(
    "options", [{}, {"clip_grad": 0.1}, {"class_weights": "balanced"}, {"loss": "bce"}]
)
def test_four_parts_are_one_batch(few: Splits, options: dict[str, Any]) -> None:
    states: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    for batch_size in (48, 12, 16, 32):  # 48 pictures: 4 x 12, 3 x 16, and 2 x 24
        setup = plain_setup(few[0], batch_size=batch_size, **options)
        sums = []
        for epoch in range(5):
            (batch,) = training_batches(few[0], 0, epoch, 48, CPU)
            sums.append(train_step(setup, batch, epoch))
        states.append((setup.model.state_dict(), torch.stack(sums)))
    for state, found in states[1:]:
        for name, value in states[0][0].items():
            assert (value - state[name]).abs().max() < 1e-12, name
        assert torch.allclose(found, states[0][1], rtol=1e-5)


def test_the_average_of_weights_is_timms(few: Splits) -> None:
    setup = make_setup(few[0], ema=0.9)
    assert setup.ema is not None
    by_hand = ModelEmaV3(setup.model, decay=0.9, use_warmup=True)
    step = 0
    for epoch in range(3):
        for batch in training_batches(few[0], 0, epoch, 16, CPU):
            train_step(setup, batch, step)
            step += 1
            by_hand.update(setup.model, step=step)
            assert same_state(setup.ema.module.state_dict(), by_hand.module.state_dict())
    assert not same_state(setup.model.state_dict(), by_hand.module.state_dict())
    assert setup.kept_model is setup.ema.module


@pytest.mark.parametrize("ema", [0.5, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("steps", [1, 2, 396, 1001, 31_700])
def test_the_decay_that_a_training_comes_to_is_timms(ema: float, steps: int) -> None:
    timms = create_average(nn.Linear(1, 1), ema)
    assert timms is not None
    last = timms.get_decay(steps)  # as train_step asks for it
    assert last_decay(ema, steps) == pytest.approx(last, abs=1e-12)
    assert (told_of_warm_up(ema, steps) is None) == (last == ema)


def test_an_average_that_its_warm_up_holds_is_told() -> None:
    assert told_of_warm_up("none", 396) is None
    assert told_of_warm_up(0.98, 396) is None
    assert told_of_warm_up(0.99, 1000) is None  # but for rounding
    assert told_of_warm_up(0.999, 396) == (
        "train: ema 0.999 acts like 0.9815: timm's warm-up of the average is not over after "
        "396 steps"
    )


def test_train_tells_of_it_first(copied: Any, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(copied, ema=0.999, epochs=1)
    run_stage(copied, "train")
    assert capsys.readouterr().out.startswith("train: ema 0.999 acts like 0.6971: timm's warm-up")


def test_the_average_is_validated_and_kept(few: Splits, tmp_path: Any) -> None:
    training = make_training(few, ema=0.99, lr=1e-2)
    run(training, checkpoint_in(tmp_path))
    other = make_setup(few[0])
    other.model.load_state_dict(training.best.weights)
    best = training.history[training.best.epoch - 1]
    assert validate(other, few[1])["loss"] == best["val_loss"]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_optimizer_and_schedule_follow_torchs_and_timms(few: Splits, name: str) -> None:
    """Step by step the same weights and rates as the parts used by hand."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    given = {**PARAMS, "optimizer": name, "schedule": "cosine", "warmup": 1, "epochs": 4}
    setup = make_setup(few[0], **given)
    plain = copy.deepcopy(setup.model)
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    rest = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.05}]
    makers = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=1e-3, fused=True),
        "sgd": lambda: torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True),
        "lamb": lambda: create_optimizer_v2(plain, "lamb", lr=1e-3, weight_decay=0.05),
    }
    optimizer = makers[name]()
    schedule = CosineLRScheduler(
        optimizer, t_initial=12, warmup_t=3, warmup_lr_init=1e-3 / 3, t_in_epochs=False
    )
    plain.train()
    step = 0
    for epoch in range(4):
        for batch in training_batches(few[0], 0, epoch, 16, CPU):
            train_step(setup, batch, step)
            loss = functional.cross_entropy(
                plain(to_input(batch[0], setup.mean, setup.std)), batch[1]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            schedule.step_update(step)
            setup.scheduler.step_update(step)
            rates = [group["lr"] for group in setup.optimizer.param_groups]
            assert rates == pytest.approx([group["lr"] for group in optimizer.param_groups])
            for ours, theirs in zip(setup.model.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(ours, theirs, atol=1e-6)


def test_plateau_follows_torchs_and_survives_a_checkpoint() -> None:
    metrics = [0.5, 0.6, 0.6, 0.6, 0.59, 0.61, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    given = {
        **PARAMS, "schedule": "plateau", "decay_epochs": 2, "decay_rate": 0.5, "epochs": 12,
    }  # fmt: skip
    by_hand = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    torchs = ReduceLROnPlateau(by_hand, mode="max", factor=0.5, patience=1)

    def fresh() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        return optimizer, create_scheduler(optimizer, given, 0.1, steps=3)

    optimizer, schedule = fresh()
    for epoch, metric in enumerate(metrics, start=1):
        for step in range(3):
            schedule.step_update((epoch - 1) * 3 + step + 1)
        schedule.step(epoch, metric)
        torchs.step(metric)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(by_hand.param_groups[0]["lr"])
        states = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
        optimizer, schedule = fresh()  # as after a kill
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
    assert by_hand.param_groups[0]["lr"] < 0.1


def test_layer_decay_lowers_the_rate_of_early_layers(few: Splits) -> None:
    setup = make_setup(few[0], layer_decay=0.5)
    rate = {id(p): g["lr"] for g in setup.optimizer.param_groups for p in g["params"]}
    names = dict(setup.model.named_parameters())
    head = max(rate.values())
    assert head == pytest.approx(1e-3)
    assert rate[id(next(iter(names.values())))] < 0.2 * head
    training = make_training(few, layer_decay=0.5)
    for batch in training_batches(few[0], 0, 0, 16, CPU):
        train_step(training.setup, batch, 0)
        training.setup.scheduler.step_update(1)
    again = {id(p): g["lr"] for g in training.setup.optimizer.param_groups for p in g["params"]}
    assert sorted(again.values()) == sorted(rate.values())


def test_the_gradient_is_clipped_to_its_norm(few: Splits) -> None:
    (batch,) = training_batches(few[0], 0, 0, 48, CPU)
    free, clipped = make_setup(few[0]), make_setup(few[0], clip_grad=0.01)
    norm = train_step(free, batch, 0)[3]
    assert train_step(clipped, batch, 0)[3] == norm > 0.01
    left = nn.utils.get_total_norm(
        [p.grad for p in clipped.model.parameters() if p.grad is not None]
    )
    assert left.item() == pytest.approx(0.01, rel=1e-4)


def test_a_frozen_backbone_rests(few: Splits, tmp_path: Any) -> None:
    """Weights and BatchNorm statistics; the classifier learns; then all of it does."""
    training = make_training(few, freeze_epochs=1, epochs=2)
    before = {k: v.clone() for k, v in training.setup.model.state_dict().items()}
    seen: list[set[str]] = []

    def look(row: dict[str, float]) -> None:
        now = training.setup.model.state_dict()
        seen.append({name for name in now if not torch.equal(now[name], before[name])})

    training.run(checkpoint_in(tmp_path), Interrupting(None), look)
    assert seen[0] == {"fc.weight", "fc.bias"}
    assert {"conv1.0.weight", "bn1.running_mean", "fc.weight"} <= seen[1]


class Frozen(nn.Module):
    """A net with what has no weights of its own to tell that it rests."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1))  # the root has weights that rest
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
        self.head_drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(self.norm(x)).flatten(1) + self.token
        return self.head(self.head_drop(found))


def test_of_a_frozen_net_the_classifier_and_its_dropout_train(few: Splits) -> None:
    setup = make_setup(few[0])
    setup.model = Frozen()
    for frozen in (True, False):
        setup.freeze_backbone(frozen)
        setup.train_mode()
        modes = {name: module.training for name, module in setup.model.named_children()}
        modes["in the body"] = setup.model.body[1].training
        trains = {"head", "head_drop"}
        assert {name for name, on in modes.items() if on} == (trains if frozen else set(modes))
        assert setup.model.training  # a step calls train_mode for a net that is evaluated


class Scaled(nn.Module):
    """A net with a fixed scale: a Parameter that does not learn, or a buffer."""

    def __init__(self, classes: int, channels: int, as_parameter: bool) -> None:
        super().__init__()
        scale = torch.full((8, 1, 1), 2.0)
        if as_parameter:
            self.scale = nn.Parameter(scale, requires_grad=False)
        else:
            self.register_buffer("scale", scale)
        self.body = nn.Conv2d(channels, 8, 3)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.body(x).relu() * self.scale).mean(dim=(2, 3)))


def scaled_training(few: Splits, as_parameter: bool, **options: Any) -> Any:
    """With weights decayed and not: timm puts what is fixed into the groups only without decay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model_module,
            "own_net",
            lambda classes, channels, _: Scaled(classes, channels, as_parameter),
        )
        return make_training(few, model="own", **options)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_a_fixed_parameter_changes_nothing(
    few: Splits, tmp_path: Any, weight_decay: float, freeze_epochs: int
) -> None:
    """Neither gradient norm nor clipping nor the weights: it is as if it were a buffer."""
    options = {"weight_decay": weight_decay, "freeze_epochs": freeze_epochs, "clip_grad": 0.05}
    found = []
    for as_parameter in (True, False):
        training = scaled_training(few, as_parameter, lr=1e-2, **options)
        run(training, checkpoint_in(tmp_path / str(as_parameter)))
        found.append((training.setup.model.state_dict(), training.history))
        assert all(row["grad_norm"] > 0.05 for row in training.history)
    assert found[0][0]["scale"].unique().tolist() == [2.0]
    assert same_state(*found)


def test_a_net_with_a_fixed_parameter_goes_on_with_the_same_bits(
    few: Splits, tmp_path: Any
) -> None:
    def training() -> Any:
        return scaled_training(few, True, clip_grad=0.05, optimizer="sgd")

    whole, first, second = training(), training(), training()
    run(whole, checkpoint_in(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(first, checkpoint_in(tmp_path / "killed", minutes=1e-9), 6)
    saved = checkpoint_in(tmp_path / "killed").load()
    assert saved is not None
    second.load_state_dict(saved)
    run(second, checkpoint_in(tmp_path / "second"))
    assert same_state(whole.state_dict(), second.state_dict())


def test_a_classifier_that_does_not_learn_cannot_train_alone(few: Splits, tmp_path: Any) -> None:
    training = make_training(few, freeze_epochs=1)
    training.setup._fixed = set(training.setup.model.parameters())
    with pytest.raises(InputError, match="freeze_epochs must be 0: the net keeps its classifier"):
        run(training, checkpoint_in(tmp_path))


def test_the_check_is_told_what_the_net_itself_keeps_fixed(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model_module, "own_net", lambda classes, channels, _: Scaled(classes, channels, True)
    )
    setup = checked_setup({**PARAMS, "model": "own"}, *few, CPU)
    assert setup.declared["frozen"] == ["scale"]
    report = checks.run(lambda: checked_setup({**PARAMS, "model": "own"}, *few, CPU))
    assert next(c for c in report.checks if c.id == "frozen_params").status == "pass"
    plain = checked_setup(PARAMS, *few, CPU)
    assert plain.declared["frozen"] == []


def test_the_weights_of_a_layer_that_rest_are_told(
    few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resting(classes: int, channels: int, _: int) -> nn.Module:
        net = Scaled(classes, channels, True)
        net.body.weight.requires_grad_(False)
        return net

    monkeypatch.setattr(model_module, "own_net", resting)
    report = checks.run(lambda: checked_setup({**PARAMS, "model": "own"}, *few, CPU))
    found = next(c for c in report.checks if c.id == "frozen_params")
    assert (found.status, found.likely_causes[0]) == ("fail", "parameter_frozen")
    assert "body.weight" in found.message
    assert "scale" not in found.message


def test_no_sum_of_gradients_in_a_cuda_graph() -> None:
    given = {**PARAMS, "compile": "reduce-overhead", "accumulate": 2}
    with pytest.raises(InputError, match="reduce-overhead sums no gradients on a GPU"):
        _require_what_it_needs(given, torch.device("cuda"))


def test_a_chosen_gpu_is_the_one_that_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert prepare_device("cuda:1", torch.get_num_threads()) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.parametrize("frozen", [0, 9])
def test_patience_ends_a_training_that_gains_nothing(
    frozen: int, few: Splits, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(
        few, patience=2, epochs=50, lr=1e-9, best_by="val/macro_f1", freeze_epochs=frozen
    )
    run(training, checkpoint_in(tmp_path))
    best = training.best.epoch
    assert training.epoch == max(best, frozen) + 2 < 50
    line = f"train: patience ended it after epoch {training.epoch}: val/macro_f1 was best in epoch"
    assert f"{line} {best}\n" in capsys.readouterr().out


def test_balanced_sampling_draws_each_class_as_often() -> None:
    labels = torch.tensor([0] * 900 + [2] * 90 + [5] * 10)
    drawn = labels[balanced_order(0, 0, labels)]
    assert len(drawn) == 1000
    shares = torch.bincount(drawn) / 1000
    assert shares[[0, 2, 5]].tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert torch.equal(balanced_order(0, 1, labels), balanced_order(0, 1, labels))
    assert not torch.equal(balanced_order(0, 0, labels), balanced_order(0, 1, labels))
    rare = balanced_order(0, 0, labels)
    assert set(rare[labels[rare] == 5].tolist()) == set(range(990, 1000))


def test_macro_f1_of_validation_is_scikit_learns(few: Splits) -> None:
    from sklearn.metrics import f1_score

    setup = make_setup(few[0])
    found = validate(setup, few[1])
    with torch.no_grad():
        pictures = torch.from_numpy(few[1].pictures(range(len(few[1]))))
        predictions = setup.model.eval()(setup.enter(pictures)).argmax(1)
    expected = f1_score(few[1].labels, predictions, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_a_gpu_that_torch_cannot_use_is_said(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU here")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Test 9000 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(InputError, match="cannot use the NVIDIA Test 9000 that the driver shows"):
        prepare_device("auto", 1)
    assert prepare_device("cpu", 1).type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert prepare_device("auto", 1).type == "cpu"


@pytest.mark.usefixtures("torch_settings")
def test_memory_that_nobody_wrote_is_seen_where_it_is_filled() -> None:
    prepare_device("cpu", torch.get_num_threads(), fill=True)
    assert torch.empty(1000).isnan().all()
    prepare_device("cpu", torch.get_num_threads())
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_the_parameters_that_learn_are_those_of_the_present_optimizer(few: Splits) -> None:
    setup = make_setup(few[0])
    assert [id(p) for p in setup.learning()] == [id(p) for p in setup.model.parameters()]
    head = list(setup.model.parameters())[-2:]
    setup.optimizer = torch.optim.SGD(reversed(head), lr=0.1)
    assert [id(p) for p in setup.learning()] == [id(p) for p in head]
    setup.model = nn.Linear(2, 2)
    assert setup.learning() == []


@pytest.mark.parametrize("mode", ["true", "warn", "false"])
def test_an_operation_that_is_not_deterministic_is_named(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unpooling writes to places that indices choose, on the CPU too."""
    pictures = torch.rand(1, 1, 4, 4)
    pooled, places = nn.MaxPool2d(2, return_indices=True)(pictures)
    prepare_device("cpu", 1, mode)
    try:
        if mode == "true":
            with pytest.raises(InputError) as caught, told_in_one_line("train"):
                nn.MaxUnpool2d(2)(pooled, places)
            assert "max_unpooling2d" in str(caught.value)
            assert "set deterministic to warn" in str(caught.value)
            return
        with told_in_one_line("train"):
            for _ in range(3):
                nn.MaxUnpool2d(2)(pooled, places)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == (1 if mode == "warn" else 0)
        assert all("max_unpooling2d" in line and "not deterministic" in line for line in said)
    finally:
        prepare_device("cpu", 1)


class Unpooling(nn.Module):
    """Has an operation in it that is not deterministic."""

    def __init__(self, classes: int):
        super().__init__()
        self.head = nn.Linear(1, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        pooled, places = nn.functional.max_pool2d(pictures, 2, return_indices=True)
        return self.head(nn.functional.max_unpool2d(pooled, places, [2]).mean((1, 2, 3))[:, None])


def test_a_net_that_is_not_deterministic_is_not_called_too_large(
    few: tuple[PackedSplit, PackedSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs when the net is made, to see whether it takes pictures of this size."""
    monkeypatch.setattr(model_module, "own_net", lambda classes, *_: Unpooling(classes))
    prepare_device("cpu", 1, "true")
    try:
        with pytest.raises(InputError, match=r"max_unpooling2d.*set deterministic to warn"):
            make_training(few, model="own")
    finally:
        prepare_device("cpu", 1)


def test_too_little_memory_is_a_line() -> None:
    words = "not enough memory: lower prepare.size"
    with pytest.raises(InputError, match=words), told_in_one_line("train"):
        torch.empty(2**48)


@pytest.mark.parametrize("accumulate", [4, 4096])
def test_a_batch_larger_than_the_data_keeps_the_size_of_its_parts(
    few: Splits, tmp_path: Any, accumulate: int
) -> None:
    training = make_training(few, accumulate=accumulate, epochs=1)
    assert training.steps == 1
    seen: list[int] = []
    training.setup.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    (batch,) = training._batches()
    train_step(training.setup, batch, 0)
    assert seen == [16, 16, 16]


@pytest.mark.parametrize(
    ("batch_size", "count", "parts"),
    [
        (2, 1, [1]),
        (2, 2, [2]),
        (2, 3, [3]),
        (2, 7, [3, 2, 2]),
        (2, 8, [2, 2, 2, 2]),
        (3, 4, [2, 2]),
        (3, 7, [3, 2, 2]),
        (16, 17, [9, 8]),
        (16, 48, [16, 16, 16]),
    ],
)
def test_no_part_of_a_step_is_a_single_picture(
    few: Splits, batch_size: int, count: int, parts: list[int]
) -> None:
    setup = plain_setup(few[0], batch_size=batch_size)
    seen: list[int] = []
    setup.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    pictures, labels = next(iter(training_batches(few[0], 0, 0, 48, CPU)))
    train_step(setup, (pictures[:count], labels[:count]), 0)
    assert seen == parts


def test_an_odd_number_of_pictures_in_parts_of_two_is_one_batch(few: Splits) -> None:
    (batch,) = training_batches(few[0], 0, 0, 48, CPU)
    odd = batch[0][:7], batch[1][:7]
    states = []
    for batch_size in (7, 2):
        setup = plain_setup(few[0], batch_size=batch_size)
        train_step(setup, odd, 0)
        states.append(setup.model.state_dict())
    for name, value in states[0].items():
        assert (value - states[1][name]).abs().max() < 1e-12, name


def test_a_step_of_one_picture_on_which_batchnorm_fails_is_a_line(few: Splits) -> None:
    setup = make_setup(few[0])
    setup.model = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 3)
    )
    setup.forward = setup.model
    setup.optimizer = create_optimizer(setup.model, PARAMS, 1e-3)
    pictures, labels = next(iter(training_batches(few[0], 0, 0, 16, CPU)))
    words = "train: BatchNorm finds no variance in a step of one picture"
    with pytest.raises(InputError, match=words), told_in_one_line("train"):
        train_step(setup, (pictures[:1], labels[:1]), 0)
    with pytest.raises(ValueError, match="other"), told_in_one_line("train"):
        raise ValueError("other")
