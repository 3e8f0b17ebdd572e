"""Augmentation that turns an image into one of another class: mirrored letters, turned arrows.

Both must hold: mirrored or turned, validation images of two classes look like each other's, and two
draws of a training item are each other's image, mirrored or turned in just this way.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from src.checks.context import Context, draw
from src.checks.data.probe import features, probe
from src.checks.report import Check, cannot_tell, warn

ITEMS, DRAWS = 24, 4  # training items that are drawn so many times
LEGIBLE = 0.7  # accuracy of the probe on validation images below which nothing is said
MOST = 0.8  # of a class's turned images look like one other class
ALIKE, BETTER = 0.8, 0.15  # correlation of two draws, and by how much above that of unturned ones
USED = 0.1  # of the pairs of draws

Turn = Callable[[Tensor], Tensor]
TURNS: dict[str, Turn] = {
    "mirrored": lambda x: x.flip(-1),
    "upside down": lambda x: x.flip(-2),
    "turned by 180 degrees": lambda x: x.flip(-1, -2),
    "turned by 90 degrees": lambda x: x.rot90(1, (-2, -1)),
    "turned by 270 degrees": lambda x: x.rot90(3, (-2, -1)),
    "transposed": lambda x: x.transpose(-1, -2),
}


def check_orientation(ctx: Context) -> list[Check]:
    """Whether the augmentation mirrors or turns images into another class."""
    val = ctx.val_sample
    if val is None or ctx.deterministic_train or val.x.ndim != 4:
        return []
    if len(val) < 2 * ITEMS:
        return [cannot_tell("turned", f"{len(val)} val items, and {2 * ITEMS} are needed")]
    labels_fit = int(val.y.min()) >= 0 and int(val.y.max()) < ctx.classes
    if val.x.shape[2] != val.x.shape[3] or not labels_fit:
        return []
    moves = {name: exchanged_classes(val.x, val.y, TURNS[name], ctx.classes) for name in TURNS}
    if not any(moves.values()):
        return []
    shares = shares_of_turns(ctx)
    for name in sorted(TURNS, key=lambda name: -shares[name]):
        if moves[name] and shares[name] > USED:
            pairs = ", ".join(f"{a} -> {b}" for a, b in list(moves[name].items())[:4])
            text = f"{shares[name]:.0%} of two draws of an item are each other {name}, and "
            text += f"images {name} are those of another class ({pairs})"
            return [warn("turned", shares[name], USED, text, "augmentation_destroys_label")]
    return []


def exchanged_classes(x: Tensor, y: Tensor, turn: Turn, classes: int) -> dict[int, int]:
    """Classes that change places when the images are turned: class -> what it looks like then."""
    joint = features(torch.cat([x, turn(x)]))
    plain, turned = joint[: len(x)], joint[len(x) :]
    if probe(plain, y, None, y, classes).accuracy < LEGIBLE:
        return {}
    guess = probe(plain, y, turned, y, classes).guess
    moved = {}
    for label in y.unique().tolist():
        named = torch.bincount(guess[y == label], minlength=classes)
        top = int(named.argmax())
        if top != label and int(named.sum()) >= 5 and float(named[top] / named.sum()) > MOST:
            moved[label] = top
    while set(moved) != set(moved.values()):  # those whose place another takes, and only those
        moved = {a: b for a, b in moved.items() if b in moved and a in moved.values()}
    return moved


def shares_of_turns(ctx: Context) -> dict[str, float]:
    """Share of the pairs of draws of a training item that are alike, up to a shift, only once one
    of them is turned; by the turn that fits best."""
    data, indices = ctx.fresh().train_data, ctx.sample.indices[:ITEMS]
    draws = [draw(data, indices, "train_data").x.mean(1) for _ in range(DRAWS)]
    counts, pairs = dict.fromkeys(TURNS, 0.0), 0
    for other in draws[1:]:
        plain = alike(draws[0], other)
        best = torch.stack([alike(draws[0], turn(other)) for turn in TURNS.values()]).max(0)
        clear = (best.values > ALIKE) & (best.values > plain + BETTER)
        for number, name in enumerate(TURNS):
            counts[name] += float((clear & (best.indices == number)).sum())
        pairs += len(plain)
    return {name: count / pairs for name, count in counts.items()}


def alike(a: Tensor, b: Tensor) -> Tensor:
    """The largest correlation of images a and b (N x H x W) over all circular shifts."""
    a, b = (x - x.mean((1, 2), keepdim=True) for x in (a, b))
    product = torch.fft.fft2(a) * torch.fft.fft2(b).conj()
    size = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    return torch.fft.ifft2(product).real.flatten(1).amax(1) / size.clamp_min(1e-12)
