"""Labels: their range and shares, and whether the pictures say anything about them."""

import numpy as np
import torch

from src.checks.context import Context, Sample, draw
from src.checks.data.probe import NEIGHBOURS, Probe, features, probe
from src.checks.report import Check

IMBALANCE = 20.0  # between the most and the least frequent class
DISTRIBUTION = 0.25  # total variation between the splits' class shares, beyond chance
CLEAR = 6.0  # standard errors above the share of the largest class: a signal beyond doubt
NOTHING = 3.0  # standard errors: none at all
NOISE_WARN, NOISE_FAIL = 0.04, 0.1  # training labels that all neighbours contradict
# What augmentation leaves of val's signal in train, and of it from train to val: small crops, 45
# degrees and noise leave 0.36 and 0.38 at least on pictures that stay what they are (measured).
LEFT, PASSED = 0.3, 0.42
FEW = 24  # items below which nothing is said about a signal


def check_labels(ctx: Context) -> list[Check]:
    """Range, presence and shares of the classes among the items looked at."""
    found = []
    classes = ctx.classes
    for name, sample in (("train", ctx.train_sample), ("val", ctx.val_sample)):
        if sample is None:
            continue
        low, high = int(sample.y.min()), int(sample.y.max())
        if low < 0 or high >= classes:
            text = f"{name} labels lie in {low}..{high}, with {classes} classes"
            found.append(Check("label_range", "fail", float(high), float(classes - 1), text,
                               ["labels_out_of_range", "num_classes"]))  # fmt: skip
            continue
        counts = torch.bincount(sample.y, minlength=classes)
        absent = [int(index) for index in torch.where(counts == 0)[0]]
        # A class with a tenth of its even share is missed by chance with e^-(n / 10 K).
        enough = len(sample) == sample.total or len(sample) >= 60 * classes
        if absent and enough:
            shown = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
            text = f"{len(absent)} of {classes} classes never occur in {name} ({shown})"
            all_gone = len(absent) > 0.5 * classes
            status = "fail" if name == "train" or all_gone else "warn"
            if status == "fail" or len(sample) >= 5 * classes:
                causes = ["class_missing", "num_classes"]
                found.append(Check("label_classes", status, float(len(absent)), 0.0, text, causes))
    if not found:
        found.append(Check("label_range", "pass", None, None, "labels lie in 0..K-1 and all occur"))
    if ctx.train_sample is not None and not any(check.id == "label_range" and check.status == "fail"
                                                for check in found):  # fmt: skip
        found += _shares(ctx)
    return found


def _shares(ctx: Context) -> list[Check]:
    assert ctx.train_sample is not None
    train = torch.bincount(ctx.train_sample.y, minlength=ctx.classes).float()
    present = train[train > 0]
    ratio = float(present.max() / present.min())
    found = []
    if ratio > IMBALANCE and float(present.max()) > 10 * NEIGHBOURS:
        text = f"the largest class has {ratio:.0f} times the pictures of the smallest"
        found.append(Check("class_balance", "warn", ratio, IMBALANCE, text, ["class_imbalance"]))
    else:
        text = f"class sizes differ by up to {ratio:.1f} times"
        found.append(Check("class_balance", "pass", ratio, IMBALANCE, text))
    if ctx.val_sample is not None:
        val = torch.bincount(ctx.val_sample.y, minlength=ctx.classes).float()
        distance = float((train / train.sum() - val / val.sum()).abs().sum() / 2)
        # What chance gives: half the mean absolute deviation of each share, summed.
        chance = float((train / train.sum() * (1 / val.sum() + 1 / train.sum())).sqrt().sum()) / 2
        text = f"class shares of train and val differ by {distance:.2f}"
        if distance > DISTRIBUTION + chance:
            status = "fail" if distance > 0.6 + chance else "warn"
            found.append(Check("label_shares", status, distance, DISTRIBUTION + chance, text,
                               ["train_val_distribution_differs", "class_missing"]))  # fmt: skip
        else:
            found.append(Check("label_shares", "pass", distance, DISTRIBUTION + chance, text))
    return found


def check_signal(ctx: Context) -> list[Check]:
    """Do labels belong to their pictures, in both splits and in the same way?"""
    train, val = ctx.train_sample, ctx.val_sample
    if train is None or len(train) < FEW or int(train.y.max()) >= ctx.classes or train.y.min() < 0:
        return []
    if len(train.y.unique()) < 2:
        return []
    classes = ctx.classes
    both = val is not None and len(val) >= FEW and val.x.shape[1:] == train.x.shape[1:]
    both = both and val is not None and int(val.y.min()) >= 0 and int(val.y.max()) < classes
    joint = features(torch.cat([train.x, val.x])) if both and val else features(train.x)
    f = joint[: len(train)]
    own = probe(f, train.y, None, train.y, classes)
    id = "label_signal"
    text = f"a simple probe gets {own.accuracy:.2f} of the training labels"
    if not both or val is None:
        if own.above < NOTHING:
            text += ", no more than chance: pictures of this kind say nothing to it"
        return [Check(id, "pass", own.accuracy, None, text)]
    g = joint[len(train) :]
    other = probe(g, val.y, None, val.y, classes)
    cross = probe(f, train.y, g, val.y, classes)
    text = (
        f"a simple probe gets {own.accuracy:.2f} of the training labels, {other.accuracy:.2f} of "
        f"the val labels, {cross.accuracy:.2f} from one to the other"
    )
    found = _map(ctx, own, other, cross, val, text)
    if found:
        return found
    destroyed = _destroyed(ctx)
    if max(other.above, cross.above) > CLEAR and own.above < NOTHING and cross.above < CLEAR:
        causes = ["labels_shuffled", "augmentation_destroys_label", "label_noise"]
        if destroyed:
            causes = ["augmentation_destroys_label", "labels_shuffled"]
        return [Check(id, "fail", own.accuracy, other.accuracy, text, causes)]
    if own.above > 2 * CLEAR and other.above < NOTHING and cross.above < NOTHING:
        return [Check(id, "fail", other.accuracy, own.accuracy, text + ": none in val",
                      ["labels_shuffled", "label_map_differs"])]  # fmt: skip
    # Signal per item: standard errors shrink with the root of the number of items.
    left = own.above / max(other.above, 1e-9) * (len(val) / len(train)) ** 0.5
    passed = cross.above / max(other.above, 1e-9)
    random = not ctx.deterministic_train
    if random and other.above > 2 * CLEAR and left < LEFT and passed < PASSED:
        told = f"of what pictures tell about labels {max(0.0, left):.0%} are left: {text}"
        if cross.above < NOTHING and not destroyed:  # two draws of an item are alike
            causes = ["labels_shuffled", "augmentation_destroys_label"]
            return [Check(id, "fail", left, LEFT, told, causes)]
        causes = ["augmentation_destroys_label", "labels_shuffled"]
        return [Check("augmentation", "warn", left, LEFT, told, causes)]
    if max(own.above, other.above) < CLEAR:
        return [Check(id, "pass", own.accuracy, None, text + ": too little to judge labels")]
    return [Check(id, "pass", own.accuracy, None, text), *_noise(own, cross, train, val)]


def _map(
    ctx: Context, own: Probe, other: Probe, cross: Probe, val: Sample, text: str
) -> list[Check]:
    """Classes that have another number in val than in train."""
    from scipy.optimize import linear_sum_assignment

    lower = min(own.accuracy, other.accuracy)
    if min(own.above, other.above) < CLEAR:
        return []
    confusion = np.zeros((ctx.classes, ctx.classes))
    np.add.at(confusion, (val.y.numpy(), cross.guess.numpy()), 1)
    moved = []
    for label in range(ctx.classes):
        count = confusion[label].sum()
        top = int(confusion[label].argmax())
        mine = other.guess[val.y == label]
        told = float((mine == label).float().mean()) if len(mine) else 0.0
        if count >= 5 and top != label and confusion[label, top] > 0.6 * count and told > 0.6:
            moved.append((label, top))
    rows, columns = linear_sum_assignment(-confusion)
    best = float(confusion[rows, columns].sum() / len(val))
    # Other numbers can be put right again; another look of the pictures cannot.
    restored = best > 0.75 * lower and len({to for _, to in moved}) == len(moved)
    shifted = cross.accuracy < 0.5 * lower and best > cross.accuracy + 0.3
    if restored and (len(moved) >= 2 or shifted):
        pairs = ", ".join(f"{a} -> {b}" for a, b in moved[:4]) or "most classes"
        return [Check("label_map", "fail", cross.accuracy, best,
                      f"{text}; as numbered in train, val has {pairs}",
                      ["label_map_differs", "labels_shuffled"])]  # fmt: skip
    if cross.accuracy < 0.5 * lower and lower > 0.4 and cross.accuracy < lower - 0.3:
        causes = ["train_val_preprocessing_differ", "augmentation_destroys_label"]
        return [Check("train_val_agree", "warn", cross.accuracy, 0.5 * lower, text, causes)]
    return []


def _noise(own: Probe, cross: Probe, train: Sample, val: Sample) -> list[Check]:
    """Training labels that nearly all neighbours contradict, against the same of val."""
    contradicted = float(((own.agreed >= 0) & (own.agreed != train.y)).float().mean())
    usual = float(((cross.agreed >= 0) & (cross.agreed != val.y)).float().mean())
    text = f"{contradicted:.1%} of the training labels are contradicted by their neighbours, " \
           f"{usual:.1%} of val's"  # fmt: skip
    clear = contradicted > 3 * usual + 0.01 and contradicted * len(train) >= 8
    if clear and contradicted > NOISE_WARN:
        status = "fail" if contradicted > NOISE_FAIL else "warn"
        return [Check("label_noise", status, contradicted, NOISE_WARN, text,
                      ["label_noise", "labels_shuffled"])]  # fmt: skip
    if usual > 3 * contradicted + 0.02 and usual > NOISE_FAIL and usual * len(val) >= 8:
        return [Check("label_noise", "warn", usual, NOISE_FAIL, text,
                      ["label_noise", "label_map_differs"])]  # fmt: skip
    return [Check("label_noise", "pass", contradicted, NOISE_WARN, text)]


def _destroyed(ctx: Context) -> bool:
    """Whether two draws of the same item are as far apart as two items."""
    if ctx.deterministic_train or ctx.train_sample is None:
        return False
    data = ctx.fresh().train_data
    indices = ctx.train_sample.indices[:48]
    again = features(torch.cat([draw(data, indices, "train_data").x for _ in range(2)]))
    first, second = again[: len(indices)], again[len(indices) :]
    same = (first - second).norm(dim=1).median()
    different = (first - second.roll(1, 0)).norm(dim=1).median()
    return bool(same > 0.85 * different)
