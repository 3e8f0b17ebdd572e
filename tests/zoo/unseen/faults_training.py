"""Faults in the train step, the optimizer and the schedule."""

import torch
from torch import nn

from tests.zoo.unseen import parts
from tests.zoo.unseen.bases import cells_depthwise, digits_mlp, gratings_cnn, shapes_transformer
from tests.zoo.unseen.bases_transfer import transfer_frozen
from tests.zoo.unseen.more_bases import tiles_bce
from tests.zoo.unseen.registry import fault


@fault(gratings_cnn, "zero_grad is missing: gradients add up over all steps")
def zero_grad_forgotten(setup):
    """The step never clears gradients."""

    def train_step(setup, batch):
        setup.model.train()
        inputs, targets = batch
        loss = setup.loss_fn(setup.model(inputs), targets)
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    setup.train_step = train_step


@fault(digits_mlp, "gradients are cleared between backward and step: nothing is learned")
def zero_grad_before_step(setup):
    """zero_grad slipped between backward and step."""

    def train_step(setup, batch):
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.zero_grad()
        setup.optimizer.step()
        return {"loss": loss.item()}

    setup.train_step = train_step


@fault(shapes_transformer, "accumulation loses micro-batches: zero_grad at every micro-batch")
def accumulation_cleared(setup):
    """zero_grad stands before each backward, so only the last of 4 micro-batches counts."""
    calls = 0

    def train_step(setup, batch):
        nonlocal calls
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1]) / 4
        loss.backward()
        calls += 1
        if calls % 4 == 0:
            nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
            setup.optimizer.step()
            setup.scheduler.step()
        return {"loss": 4 * loss.item()}

    setup.train_step = train_step


@fault(digits_mlp, "the loss is cut from the graph: no gradient reaches the model")
def loss_rewrapped(setup):
    """torch.tensor(loss, requires_grad=True) silences an error and cuts the graph."""

    def train_step(setup, batch):
        setup.model.train()
        logits = setup.model(batch[0]).detach()
        loss = setup.loss_fn(logits, batch[1]).clone().requires_grad_(True)
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        return {"loss": loss.item()}

    setup.train_step = train_step


@fault(cells_depthwise, "the step keeps the loss with its graph: memory grows with every step")
def losses_kept_with_graph(setup):
    """The running loss adds tensors instead of numbers."""
    running = []

    def train_step(setup, batch):
        setup.model.train()
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        loss.backward(retain_graph=True)
        setup.optimizer.step()
        setup.scheduler.step()
        running.append(loss)
        return {"loss": loss.item(), "running": float(sum(running[-50:])) / len(running[-50:])}

    setup.train_step = train_step


@fault(gratings_cnn, "the model trains in evaluation mode (dropout and BatchNorm off)")
def never_in_train_mode(setup):
    """model.eval() was copied into the step: BatchNorm keeps its first statistics."""

    def train_step(setup, batch):
        setup.model.eval()
        inputs, targets = batch
        setup.optimizer.zero_grad()
        loss = setup.loss_fn(setup.model(inputs), targets)
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    setup.train_step = train_step


@fault(gratings_cnn, "after an evaluation the model stays in evaluation mode")
def mode_not_restored(setup):
    """model.train() is called once at the start; the first evaluation ends it for good."""
    setup.model.train()

    def train_step(setup, batch):
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        setup.optimizer.zero_grad()
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        return {"loss": loss.item()}

    setup.train_step = train_step


@fault(transfer_frozen, "the optimizer does not hold the new head: it was built before")
def head_not_in_optimizer(setup):
    """The head was replaced after the optimizer had been built."""
    torch.manual_seed(18)
    setup.model.head = nn.Linear(24, 6)


@fault(tiles_bce, "part of the network is not in the optimizer: only the head's parameters are")
def only_head_in_optimizer(setup):
    """optimizer = AdamW(model.head.parameters()) is left from a run with a frozen body."""
    setup.optimizer = torch.optim.AdamW(setup.model.head.parameters(), 4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR
    setup.scheduler = schedule(setup.optimizer, 4e-3, total_steps=450)


@fault(transfer_frozen, "the body is trained although it is declared frozen")
def frozen_only_in_name(setup):
    """module.requires_grad = False sets an attribute that nothing reads."""
    for parameter in setup.model.body.parameters():
        parameter.requires_grad_(True)
    setup.model.body.requires_grad = False
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), 0.02, 0.9, weight_decay=5e-4)
    setup.scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 150, 0.2)


@fault(gratings_cnn, "an epoch-wise schedule is stepped per batch: the lr vanishes at once")
def epoch_schedule_per_batch(setup):
    """StepLR(step_size=10, gamma=0.1), meant for 20 epochs, moves with every batch."""
    setup.scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 10, 0.1)


@fault(shapes_transformer, "the schedule is never stepped: lr stays at the start of the warm-up")
def warmup_never_stepped(setup):
    """The warm-up starts at zero and scheduler.step() is missing."""
    schedule = torch.optim.lr_scheduler.LambdaLR
    optimizer = torch.optim.AdamW(setup.model.parameters(), 2e-3, weight_decay=0.05)
    setup.optimizer = optimizer
    setup.scheduler = schedule(optimizer, lambda step: min(1.0, step / 40))
    calls = 0

    def train_step(setup, batch):
        nonlocal calls
        setup.model.train()
        loss = setup.loss_fn(setup.model(batch[0]), batch[1])
        (loss / 4).backward()
        calls += 1
        if calls % 4 == 0:
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        return {"loss": loss.item(), "lr": setup.scheduler.get_last_lr()[0]}

    setup.train_step = train_step


@fault(cells_depthwise, "weight decay far too strong for SGD: the weights shrink to nothing")
def weight_decay_of_another_optimizer(setup):
    """weight_decay=0.3 came from an AdamW recipe; SGD with momentum takes it as a gradient."""
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), 0.05, 0.9, weight_decay=0.3)
    setup.scheduler = torch.optim.lr_scheduler.StepLR(setup.optimizer, 300, 0.1)


@fault(gratings_cnn, "gradients are clipped to almost nothing")
def clipped_to_nothing(setup):
    """clip_grad_norm_ got the lr of the schedule's end as its largest norm."""
    setup.train_step = parts.make_step(clip=1e-4)


@fault(tiles_bce, "the lr is zero from the second step on: integer division in the schedule")
def schedule_by_integer_division(setup):
    """A linear decay is written (total - step) // total."""
    schedule = torch.optim.lr_scheduler.LambdaLR
    optimizer = torch.optim.AdamW(setup.model.parameters(), 4e-3, weight_decay=0.02)
    setup.optimizer = optimizer
    setup.scheduler = schedule(optimizer, lambda step: (450 - step) // 450)
