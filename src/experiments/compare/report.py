"""The comparison of the first group with each of the others."""

from dataclasses import dataclass
from pathlib import Path

from src.experiments import statistics, stored
from src.experiments.compare import changes, predictions
from src.experiments.compare.changes import Changes
from src.experiments.compare.groups import Group
from src.experiments.statistics import OnImages, Paired
from src.plumbing.errors import InputError

LOWER_IS_BETTER = ("log_loss", "calibration_error")  # of all others more is better
LEAST_STEP = 1e-6  # the last digit in metrics.json


@dataclass(frozen=True)
class Scores:
    """The metric of a group; `spread`: standard deviation, None for one seed."""

    name: str
    by_seed: dict[int, float]
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`, both as `*_overrides` of the workspace. `verdict` on training
    again: better, worse or undecided, from the corrected p; `images` on the networks of seeds
    `images_seeds`. `*_corrected` by Holm, as one of `among`; intervals are each its own."""

    first: str
    second: str
    first_overrides: dict[str, str]
    second_overrides: dict[str, str]
    changed: Changes
    seeds: list[int]
    training: Paired
    p_corrected: float | None
    verdict: str
    images: OnImages
    images_seeds: tuple[int, int]
    images_p_corrected: float | None
    among: int


@dataclass(frozen=True)
class Report:
    """`metric`: of metrics.json. `looks`: how often test was looked at so far, None for val."""

    split: str
    metric: str
    groups: list[Scores]
    comparisons: list[Comparison]
    looks: int | None = None

    @property
    def measured(self) -> str:
        """Such as `macro f1 on val`."""
        return f"{self.metric.replace('_', ' ')} on {self.split}"


def make(groups: list[Group], split: str, root: Path, metric: str) -> Report:
    """Compare all groups with the first one on val or test, by a metric of metrics.json. InputError
    where their data differ, or the metric or predictions are missing."""
    first, others = groups[0], groups[1:]
    for other in others:
        changes.require_same_data((first.name, other.name), first.named, other.named)
    trained = [_training(first, other, split, metric) for other in others]
    shown = [_on_images(first, other, split, root) for other in others]
    corrected = statistics.holm([pair.p for _, pair in trained])
    images_corrected = statistics.holm([images.p for images, _ in shown])
    comparisons = [
        Comparison(
            first=first.name,
            second=other.name,
            first_overrides=stored.overrides(first.named),
            second_overrides=stored.overrides(other.named),
            changed=changes.between(first.named, other.named),
            seeds=seeds,
            training=pair,
            p_corrected=p,
            verdict=statistics.verdict(pair.n, pair.difference, p, metric in LOWER_IS_BETTER),
            images=images,
            images_seeds=images_seeds,
            images_p_corrected=images_p,
            among=len(others),
        )
        for other, (seeds, pair), p, (images, images_seeds), images_p in zip(
            others, trained, corrected, shown, images_corrected, strict=True
        )
    ]
    return Report(split, metric, [_scores(group, split, metric) for group in groups], comparisons)


def _scores(group: Group, split: str, metric: str) -> Scores:
    by_seed = group.scores(split, metric)
    values = list(by_seed.values())
    if len(values) == 1:
        return Scores(group.name, by_seed, values[0], None)
    found = statistics.spread(values)
    return Scores(group.name, by_seed, found.mean, found.sd)


def _training(first: Group, second: Group, split: str, metric: str) -> tuple[list[int], Paired]:
    one, other = first.scores(split, metric), second.scores(split, metric)
    seeds = sorted(set(one) & set(other))
    step = 1 / first.named.metrics[split]["n"] if metric == "accuracy" else LEAST_STEP
    lower = metric in LOWER_IS_BETTER
    return seeds, statistics.paired([other[seed] - one[seed] for seed in seeds], step, lower)


def _on_images(
    first: Group, second: Group, split: str, root: Path
) -> tuple[OnImages, tuple[int, int]]:
    """The two networks that were named, or, if one has no partner, those of a common seed."""
    one, other = first.named, second.named
    if one.seed != other.seed:
        if other.seed in first.by_seed:
            one = first.by_seed[other.seed]
        elif common := sorted(set(first.by_seed) & set(second.by_seed)):
            one, other = first.by_seed[common[0]], second.by_seed[common[0]]
    mine = predictions.correct(one, split, first.name, root)
    theirs = predictions.correct(other, split, second.name, root)
    if mine.labels != theirs.labels:
        raise InputError(f"{first.name} and {second.name} have predictions on different images")
    # A result of older code does not name the groups of the same images.
    groups = theirs.groups if mine.groups is None else mine.groups
    found = statistics.on_images(mine.hits, theirs.hits, groups=groups)
    return found, (one.seed, other.seed)
