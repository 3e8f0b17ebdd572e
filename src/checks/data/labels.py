"""Labels: their range and shares, and whether the images say anything about them."""

from collections.abc import Iterator

import numpy as np
import torch

from src.checks.context import Context, Sample, draw
from src.checks.data.probe import NEIGHBOURS, Probe, features, probe
from src.checks.report import Check, above, cannot_tell, fail, finding, ok, warn

IMBALANCE = 20.0  # between the most and the least frequent class
DISTRIBUTION = 0.25  # total variation between the splits' class shares, beyond chance
CLEAR = 6.0  # standard errors above the share of the largest class: a signal beyond doubt
NOTHING = 3.0  # standard errors: none at all
WRONG_WARN, WRONG_FAIL = 0.04, 0.1  # training labels that all neighbours contradict
# What augmentation leaves of val's signal in train, and of it from train to val: small crops, 45
# degrees and noise leave 0.36 and 0.38 at least on images that stay what they are (measured).
LEFT, PASSED = 0.3, 0.42
FEW = 24  # items below which nothing is said about a signal


def check_labels(ctx: Context) -> list[Check]:
    """Range, presence and shares of the classes among the items looked at."""
    found = list(_range_and_presence(ctx))
    out_of_range = any(check.id == "label_range" for check in found)
    if not found:
        seen = len(torch.cat([sample.y for _, sample in ctx.samples()]).unique())
        occur = "all" if seen == ctx.classes else f"{seen} of {ctx.classes}, as far as looked at,"
        found = [ok("label_range", None, None, f"labels lie in 0..K-1 and {occur} occur")]
    return found if out_of_range else [*found, _balance(ctx), *_shares(ctx)]


def _range_and_presence(ctx: Context) -> Iterator[Check]:
    classes = ctx.classes
    for name, sample in ctx.samples():
        low, high = int(sample.y.min()), int(sample.y.max())
        if low < 0 or high >= classes:
            text = f"{name} labels lie in {low}..{high}, with {classes} classes"
            causes = ["labels_out_of_range", "num_classes"]
            yield fail("label_range", float(high), float(classes - 1), text, *causes)
            continue
        counts = torch.bincount(sample.y, minlength=classes)
        absent = [int(index) for index in torch.where(counts == 0)[0]]
        # A class with a tenth of its even share is missed by chance with e^-(n / 10 K).
        enough = len(sample) == sample.total or len(sample) >= 60 * classes
        if absent and enough:
            shown = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
            text = f"{len(absent)} of {classes} classes never occur in {name} ({shown})"
            status = "fail" if name == "train" or len(absent) > 0.5 * classes else "warn"
            if status == "fail" or len(sample) >= 5 * classes:
                causes = ["class_missing", "num_classes"]
                yield finding(status, "label_classes", float(len(absent)), 0.0, text, *causes)


def _balance(ctx: Context) -> Check:
    counts = torch.bincount(ctx.sample.y, minlength=ctx.classes).float()
    present = counts[counts > 0]
    ratio = float(present.max() / present.min())
    if ratio > IMBALANCE and float(present.max()) > 10 * NEIGHBOURS:
        text = f"the largest class has {ratio:.0f} times the images of the smallest"
        return warn("class_balance", ratio, IMBALANCE, text, "class_imbalance")
    return ok("class_balance", ratio, IMBALANCE, f"class sizes differ by up to {ratio:.1f} times")


def _shares(ctx: Context) -> list[Check]:
    if ctx.val_sample is None:
        return []
    train, val = (
        torch.bincount(sample.y, minlength=ctx.classes).float() for _, sample in ctx.samples()
    )
    distance = float((train / train.sum() - val / val.sum()).abs().sum() / 2)
    # What chance gives: half the mean absolute deviation of each share, summed.
    chance = float((train / train.sum() * (1 / val.sum() + 1 / train.sum())).sqrt().sum()) / 2
    id, text = "label_shares", f"class shares of train and val differ by {distance:.2f}"
    status = above(distance, DISTRIBUTION + chance, 0.6 + chance)
    causes = ["train_val_distribution_differs", "class_missing"]
    return [finding(status, id, distance, DISTRIBUTION + chance, text, *causes)]


def check_signal(ctx: Context) -> list[Check]:
    """Do labels belong to their images, in both splits and in the same way?"""
    train, val, id = ctx.sample, ctx.val_sample, "label_signal"
    if len(train) < FEW or len(train.y.unique()) < 2:
        there = f"{len(train)} training items of {len(train.y.unique())} classes"
        return [cannot_tell(id, f"{there}, and {FEW} of two are needed")]
    if not _can_be_judged(ctx, train):  # labels out of range, which is a finding of its own
        return []
    if val is None or not _can_be_judged(ctx, val) or val.x.shape[1:] != train.x.shape[1:]:
        own = probe(features(train.x), train.y, None, train.y, ctx.classes)
        text = f"a simple probe gets {own.accuracy:.2f} of the training labels"
        if own.above < NOTHING:
            text += ", no more than chance: images of this kind say nothing to it"
        return [ok(id, own.accuracy, None, text)]
    joint = features(torch.cat([train.x, val.x]))
    f, g = joint[: len(train)], joint[len(train) :]
    own = probe(f, train.y, None, train.y, ctx.classes)
    other = probe(g, val.y, None, val.y, ctx.classes)
    cross = probe(f, train.y, g, val.y, ctx.classes)
    text = (
        f"a simple probe gets {own.accuracy:.2f} of the training labels, {other.accuracy:.2f} of "
        f"the val labels, {cross.accuracy:.2f} from one to the other"
    )
    wrong = _numbering(ctx, own, other, cross, text) or _lost_signal(ctx, own, other, cross, text)
    if wrong is not None:
        return [wrong]
    if max(own.above, other.above) < CLEAR:
        return [ok(id, own.accuracy, None, f"{text}: too little to judge labels")]
    if other.most < CLEAR:
        text = f"{text}; of val labels it cannot tell: nearly all are of one class"
    return [ok(id, own.accuracy, None, text), _contradicted(own, cross)]


def _can_be_judged(ctx: Context, sample: Sample) -> bool:
    return len(sample) >= FEW and int(sample.y.min()) >= 0 and int(sample.y.max()) < ctx.classes


def _lost_signal(ctx: Context, own: Probe, other: Probe, cross: Probe, text: str) -> Check | None:
    """A split whose labels say little about its images, where the other's do."""
    id, destroyed = "label_signal", _destroyed(ctx)
    if max(other.above, cross.above) > CLEAR and own.above < NOTHING and cross.above < CLEAR:
        causes = ["labels_shuffled", "augmentation_destroys_label", "label_noise"]
        if destroyed:
            causes = ["augmentation_destroys_label", "labels_shuffled"]
        return fail(id, own.accuracy, other.accuracy, text, *causes)
    visible = own.above * min(other.most, cross.most) / max(own.most, 1e-9) > CLEAR
    if visible and own.above > 2 * CLEAR and other.above < NOTHING and cross.above < NOTHING:
        causes = ["labels_shuffled", "label_map_differs"]
        return fail(id, other.accuracy, own.accuracy, f"{text}: none in val", *causes)
    # Signal per item: standard errors shrink with the root of the number of items.
    left = own.above / max(other.above, 1e-9) * (len(other.wanted) / len(own.wanted)) ** 0.5
    passed = cross.above / max(other.above, 1e-9)
    random = not ctx.deterministic_train
    if random and other.above > 2 * CLEAR and left < LEFT and passed < PASSED:
        text = f"of what images tell about labels {max(0.0, left):.0%} are left: {text}"
        causes = ["augmentation_destroys_label", "labels_shuffled"]
        if cross.above < NOTHING and not destroyed:  # two draws of an item are alike
            return fail(id, left, LEFT, text, *causes[::-1])
        return warn("augmentation", left, LEFT, text, *causes)
    return None


def _numbering(ctx: Context, own: Probe, other: Probe, cross: Probe, text: str) -> Check | None:
    """Classes that have another number in val than in train."""
    from scipy.optimize import linear_sum_assignment

    lower = min(own.accuracy, other.accuracy)
    if min(own.above, other.above) < CLEAR:
        return None
    confusion = np.zeros((ctx.classes, ctx.classes))
    np.add.at(confusion, (cross.wanted.numpy(), cross.guess.numpy()), 1)
    moved = []
    for label in range(ctx.classes):
        count = confusion[label].sum()
        top = int(confusion[label].argmax())
        mine = other.guess[other.wanted == label]
        known = float((mine == label).float().mean()) if len(mine) else 0.0
        if count >= 5 and top != label and confusion[label, top] > 0.6 * count and known > 0.6:
            moved.append((label, top))
    rows, columns = linear_sum_assignment(-confusion)
    best = float(confusion[rows, columns].sum() / len(cross.wanted))
    # Other numbers can be put right again; another look of the images cannot.
    restored = best > 0.75 * lower and len({to for _, to in moved}) == len(moved)
    shifted = cross.accuracy < 0.5 * lower and best > cross.accuracy + 0.3
    if restored and (len(moved) >= 2 or shifted):
        pairs = ", ".join(f"{a} -> {b}" for a, b in moved[:4]) or "most classes"
        text += f"; as numbered in train, val has {pairs}"
        return fail("label_map", cross.accuracy, best, text, "label_map_differs", "labels_shuffled")
    if cross.accuracy < 0.5 * lower and lower > 0.4 and cross.accuracy < lower - 0.3:
        causes = ["train_val_preprocessing_differ", "augmentation_destroys_label"]
        return warn("train_val_agree", cross.accuracy, 0.5 * lower, text, *causes)
    return None


def _contradicted(own: Probe, cross: Probe) -> Check:
    """Training labels that nearly all neighbours contradict, against the same of val."""
    id = "label_noise"
    wrong = float(((own.agreed >= 0) & (own.agreed != own.wanted)).float().mean())
    usual = float(((cross.agreed >= 0) & (cross.agreed != cross.wanted)).float().mean())
    text = f"{wrong:.1%} of the training labels are contradicted by their neighbours, "
    text += f"{usual:.1%} of val's"
    if usual > 3 * wrong + 0.02 and usual > WRONG_FAIL and usual * len(cross.wanted) >= 8:
        return warn(id, usual, WRONG_FAIL, text, "label_noise", "label_map_differs")
    clear = wrong > 3 * usual + 0.01 and wrong * len(own.wanted) >= 8
    status = above(wrong, WRONG_WARN, WRONG_FAIL) if clear else "pass"
    return finding(status, id, wrong, WRONG_WARN, text, "label_noise", "labels_shuffled")


def _destroyed(ctx: Context) -> bool:
    """Whether two draws of the same item are as far apart as two items."""
    if ctx.deterministic_train:
        return False
    data = ctx.fresh().train_data
    indices = ctx.sample.indices[:48]
    again = features(torch.cat([draw(data, indices, "train_data").x for _ in range(2)]))
    first, second = again[: len(indices)], again[len(indices) :]
    same = (first - second).norm(dim=1).median()
    different = (first - second.roll(1, 0)).norm(dim=1).median()
    return bool(same > 0.85 * different)
