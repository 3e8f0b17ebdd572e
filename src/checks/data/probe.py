"""What images tell about labels, by nearest neighbours and ridge regression, leave-one-out."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

NEIGHBOURS = 7


def features(x: Tensor) -> Tensor:
    """N x D, standardised: 8 x 8 mean pixels per channel, 4 x 4 energies of 8 edge directions."""
    if x.ndim != 4:
        flat = x.reshape(len(x), -1)
        return _standard(flat[:, :: max(1, flat.shape[1] // 512)])
    pixels = functional.adaptive_avg_pool2d(x, 8).reshape(len(x), -1)
    grey = x.mean(1, keepdim=True)
    if min(x.shape[2:]) > 32:
        grey = functional.adaptive_avg_pool2d(grey, 32)
    across = functional.pad(grey[..., 1:] - grey[..., :-1], (0, 1))
    down = functional.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    size = (across.square() + down.square()).sqrt()
    angle = torch.atan2(down, across)
    parts = [
        functional.adaptive_avg_pool2d(size * (angle - k * torch.pi / 4).cos().clamp_min(0) ** 4, 4)
        for k in range(8)
    ]
    edges = torch.cat(parts, 1).reshape(len(x), -1)
    # What a shift does not change: colours by their quantiles, directions and sizes overall.
    flat = x.reshape(len(x), x.shape[1], -1)
    flat = flat[:, :, :: max(1, flat.shape[2] // 1024)]
    quantiles = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    colours = torch.quantile(flat, quantiles, dim=2).permute(1, 2, 0).reshape(len(x), -1)
    centred = flat - flat.mean(2, keepdim=True)
    moments = (centred @ centred.transpose(1, 2) / flat.shape[2]).reshape(len(x), -1)
    overall = torch.cat(parts, 1).mean((2, 3))
    invariant = torch.cat([colours, moments, overall], 1)
    return torch.cat([_standard(pixels), _standard(edges), _standard(invariant)], 1)


def _standard(f: Tensor) -> Tensor:
    return (f - f.mean(0)) / (f.std(0) + 1e-6) / f.shape[1] ** 0.5


@dataclass
class Probe:
    """What was predicted for items of a split: `guess` (the better of two) where `wanted` is right,
    its `accuracy` and how many standard errors that is `above` the largest class, and `most` that
    right guesses alone would be; `agreed`: the class that at least six of seven neighbours have,
    else -1."""

    guess: Tensor
    wanted: Tensor
    accuracy: float
    above: float
    most: float
    agreed: Tensor


def probe(f: Tensor, y: Tensor, query: Tensor | None, wanted: Tensor, classes: int) -> Probe:
    """From items (f, y) to the query, or to the items themselves, each left out."""
    q = f if query is None else query
    distance = torch.cdist(q, f)
    if query is None:
        distance.fill_diagonal_(float("inf"))
    k = min(NEIGHBOURS, max(1, len(f) // 8))
    votes = functional.one_hot(y[distance.topk(k, largest=False).indices], classes).sum(1)
    top = votes.max(1)
    agreed = torch.where(top.values >= k - 1, top.indices, torch.full_like(top.indices, -1))
    a = torch.cat([f, torch.ones(len(f), 1)], 1).double()
    gram = a.T @ a + 0.02 * len(f) / f.shape[1] * torch.eye(a.shape[1], dtype=torch.float64)
    target = functional.one_hot(y, classes).double()
    weights = torch.linalg.solve(gram, a.T @ target)
    scores = torch.cat([q, torch.ones(len(q), 1)], 1).double() @ weights
    if query is None:
        leverage = (a * torch.linalg.solve(gram, a.T).T).sum(1, keepdim=True)
        scores = target - (target - scores) / (1 - leverage).clamp_min(1e-6)
    # Where classes are rare, what speaks for one beyond its share is worth more than its share.
    prior = target.mean(0)
    guesses = (top.indices, scores.argmax(1), (scores / prior.clamp_min(1e-9).sqrt()).argmax(1))
    guess = max(guesses, key=lambda g: float((g == wanted).float().mean()))
    accuracy = float((guess == wanted).float().mean())
    base = float(torch.bincount(wanted, minlength=classes).max()) / len(wanted)
    error = max((base * (1 - base) / len(wanted)) ** 0.5, 0.5 / len(wanted))
    above = max([(accuracy - base) / error, *(_balanced(g, wanted, classes) for g in guesses)])
    most = max((1 - base) / error, _balanced(wanted, wanted, classes))
    return Probe(guess, wanted, accuracy, above, most, agreed)


def _balanced(guess: Tensor, wanted: Tensor, classes: int) -> float:
    """Standard errors by which the mean recall of the classes is above chance (1 / `classes`); 0
    where no class has two items, of which nothing can be said."""
    counts = torch.bincount(wanted, minlength=classes).double()
    hits = torch.bincount(wanted[guess == wanted], minlength=classes).double()
    there = counts >= 2
    if not bool(there.any()):
        return 0.0
    recalls = hits[there] / counts[there]
    shares = torch.bincount(guess, minlength=classes).double()[there] / len(guess)
    error = float((shares * (1 - shares) / counts[there]).sum().sqrt()) / int(there.sum())
    return float(recalls.mean() - shares.mean()) / max(error, 0.5 / len(guess))
