"""Mixing of images and labels (mixup, cutmix), recounted.

An image that enters the net is taken apart into those of its batch: a weighted sum, or pixels of
two. The labels that reach the loss must hold the same shares. Other mixtures are not judged.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

EXACT = 1e-3  # relative: what float32 leaves of a sum of images
SAME = 0.02  # of a share
APART = 0.1  # of a share: beyond it two shares are different
MORE = 0.2  # by which a label may say more of its own than the image shows
ROUNDING = 1e-3  # shares below it are no shares
UNCHANGED = "the labels do not change with them"
ROWS, SIDE = 48, 64  # images of a batch that are taken apart, and of how many pixels a side


@dataclass
class Parts:
    """What each of B images is made of: its own share lies in `low`..`high`, the rest is image
    `partner` of the batch; `known` where that is certain."""

    low: Tensor
    high: Tensor
    partner: Tensor
    known: Tensor


def take_apart(rows: Tensor, own: Tensor) -> Parts | None:
    """The first of `rows` (B x C x ...) as mixtures of the batch `own`, None if they are not."""
    if own.ndim == 4:
        step = -(-max(own.shape[2:]) // SIDE)
        rows, own = rows[..., ::step, ::step], own[..., ::step, ::step]
    rows = rows[:ROWS]
    for way in (_as_mixup, _as_cutmix):
        found = way(rows, own)
        if found is not None and float(found.known.float().mean()) > 0.9:
            return found
    return None


def _as_mixup(rows: Tensor, own: Tensor) -> Parts | None:
    """Each image is a weighted sum of its own and one other."""
    a, b = own.reshape(len(own), -1).double(), rows.reshape(len(rows), -1).double()
    if len(a) >= a.shape[1]:
        return None
    spread = torch.linalg.svdvals(a)
    if not bool(spread[-1] > 1e-5 * spread[0]):  # equal images: their shares look alike
        return None
    shares = torch.linalg.lstsq(a.T, b.T).solution.T
    off = (shares @ a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-12)
    mine, others = shares.diagonal(), shares.clone().fill_diagonal_(0)
    top = others.max(1)
    third = others.abs().sum(1) - top.values.abs()
    known = (off < EXACT) & (third < 0.01) & ((mine + top.values - 1).abs() < 0.01)
    known &= (mine > -0.01) & (top.values > -0.01)
    # Which image the partner is shows as long as its share stands out from rounding.
    partner = torch.where(top.values > ROUNDING, top.indices, torch.arange(len(b)))
    return Parts(mine, mine, partner, known)


def _as_cutmix(rows: Tensor, own: Tensor) -> Parts | None:
    """Each pixel is that of the own image or of one other; where both are equal, of either."""
    if own.ndim != 4:
        return None
    size, count = float(own.abs().max()), len(rows)
    mine = ((rows - own[:count]).abs().amax(1) <= EXACT * size).flatten(1)
    partner, low, high = torch.arange(count), torch.ones(count), torch.ones(count)
    known = torch.ones(count, dtype=torch.bool)
    for i in range(count):
        if bool(mine[i].all()):
            continue
        theirs = ((rows[i] - own).abs().amax(1) <= EXACT * size).flatten(1)
        theirs[i] = False
        fits = (theirs | mine[i]).float().mean(1)
        partner[i] = fits.argmax()
        other = theirs[partner[i]]
        known[i] = bool(fits[partner[i]] == 1)
        low[i] = (mine[i] & ~other).float().mean()
        high[i] = mine[i].float().mean()
    return Parts(low.double(), high.double(), partner, known)


def plain_shares(targets: Tensor, smoothing: float) -> Tensor | None:
    """Targets B x K as shares that sum to 1, smoothing taken off; None where they are no shares."""
    shares = targets.double()
    total = shares.sum(1, keepdim=True)
    if bool((total <= 0).any()) or bool((shares < -1e-6).any()):
        return None
    shares, classes = shares / total, shares.shape[1]
    # Two mixed classes leave a third of three untouched: it holds what smoothing gives.
    rest = float(shares.min(1).values.median()) if classes > 2 else smoothing / 2
    if classes * rest >= 0.9:
        return None
    return (shares - rest) / (1 - classes * rest)


def judge(parts: Parts, labels: Tensor, shares: Tensor) -> tuple[float, str]:
    """(share of the images whose label is mixed otherwise, in what way; "" where it follows or
    cannot be judged). `labels` B as in the batch, `shares` B x K as they reached the loss."""
    theirs, rows = labels[parts.partner], torch.arange(len(parts.partner))
    labels, shares = labels[rows], shares[rows]
    mine, other = shares[rows, labels], shares[rows, theirs]
    two = parts.known & (theirs != labels)
    if int(two.sum()) < max(2, len(labels) // 4):
        return 0.0, ""

    def among(found: Tensor, of: Tensor) -> float:
        return float((found & of).sum() / of.sum().clamp_min(1))

    swapped = (1 - parts.high - SAME <= mine) & (mine <= 1 - parts.low + SAME)
    swapped &= (mine - parts.low).abs().minimum((mine - parts.high).abs()) > APART
    swapped &= (mine + other - 1).abs() < SAME
    # Images that are wholly others are no mixture: those were put into another order.
    clear = two & ((parts.low + parts.high - 1).abs() > 2 * APART) & (parts.high > SAME)
    if int(clear.sum()) >= 2 and among(swapped, clear) > 0.9:
        return among(swapped, clear), "the shares are exchanged"
    # A third label: one that belongs to no part of the image.
    strange = shares.scatter(1, torch.stack([labels, theirs], 1), 0)
    top = strange.max(1).values
    third = (top > APART) & (top > 0.8 * strange.clamp_min(0).sum(1))
    if among(third, two) > 0.5:
        return among(third, two), "the labels are those of other images"
    more = (mine > parts.high + MORE) & two
    if float(more.float().mean()) > 0.3:
        return float(more.float().mean()), UNCHANGED
    return 0.0, ""


def labels_alone(labels: Tensor, shares: Tensor) -> bool:
    """Whether labels are mixed by exchange within the batch: one share for all, one other class in
    each, and over the batch as many of each class as before."""
    mine = shares.gather(1, labels[:, None])[:, 0]
    other = shares.scatter(1, labels[:, None], 0).max(1)
    mixed = other.values > SAME
    if float(mixed.float().mean()) < 0.3:
        return False
    one = bool((other.values[mixed] - other.values[mixed].median()).abs().max() < 1e-3)
    alone = bool(((mine + other.values - 1).abs() < 1e-3).all())
    counts = functional.one_hot(labels, shares.shape[1]).double().sum(0)
    return one and alone and bool((shares.sum(0) - counts).abs().max() < 1e-2)
