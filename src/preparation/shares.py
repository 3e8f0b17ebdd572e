"""Whether the splits by hash hold the shares that are wanted, and which `split_seed` comes closest.

The split of a sample or a group is a function of the seed and of itself alone, so that a new one
moves no other. What can be chosen is the seed: some hundred are tried on the counts.
"""

from dataclasses import dataclass

import numpy as np

from src.data.split import SPLITS, split_of
from src.preparation.ledger import Ledger

SEEDS = 500  # tried at most (choice)
MOST_HASHES = 1_000_000  # in all seeds together: two seconds (choice)
FEWEST_SEEDS = 20  # of fewer none need be good (choice)
# With groups a split is far from its share when it is off by a quarter of it; without them, where
# that is chance in a small set, by half of it. A class of groups is far when a split has less than
# half of what it should have. (choice)
FAR, FAR_ALONE, FAR_CLASS = 0.25, 0.5, 0.5
FEWEST = 5  # samples of a class whose splits are looked at (choice)
CLOSER = 0.75  # a seed is named when what is amiss shrinks below this share (choice)


@dataclass(frozen=True)
class Counts:
    """Samples by split and class (int64 S x K), of those splits alone that are filled by hash, and
    the shares (float64 S) that are wanted of them."""

    splits: tuple[str, ...]
    wanted: np.ndarray
    counts: np.ndarray

    def with_counts(self, counts: np.ndarray) -> "Counts":
        return Counts(self.splits, self.wanted, counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def is_far(self, limit: float) -> bool:
        """Whether a split is off by more than this part of its share."""
        wanted = self.wanted * self.total
        return bool((np.abs(self.counts.sum(axis=1) - wanted) > limit * wanted).any())

    @property
    def has_far_class(self) -> bool:
        totals = self.counts.sum(axis=0)
        few = self.counts < FAR_CLASS * self.wanted[:, None] * totals
        return bool((few & (totals >= FEWEST)).any())

    def amiss_by_class(self) -> np.ndarray:
        """Of each class the share of samples that would have to move (float64 K)."""
        return _misplaced(self.counts, self.wanted)

    @property
    def lacking(self) -> int:
        """How often a split has no sample of a class."""
        return int((self.counts == 0).sum())

    @property
    def amiss(self) -> float:
        """What is wrong: the share of samples that would have to move, of all and of the mean
        class, so at most 2, and 1 more for each class that a split lacks."""
        whole = _misplaced(self.counts.sum(axis=1, keepdims=True), self.wanted)
        return float(self.lacking + whole[0] + self.amiss_by_class().mean())

    def shown(self, label: int | None = None) -> str:
        """The numbers of the splits, of one class or of all."""
        counts = self.counts.sum(axis=1) if label is None else self.counts[:, label]
        return "/".join(map(str, counts.tolist()))


def _misplaced(counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    totals = counts.sum(axis=0)
    off = np.abs(counts - wanted[:, None] * totals).sum(axis=0) / 2
    found: np.ndarray = off / np.maximum(totals, 1)
    return found


def far_from_wanted(ledger: Ledger) -> str | None:
    """A line if the splits by hash are far from the wanted shares, with the seed that comes closest
    in shares and classes; None if they are close, or if all splits are given."""
    here = _present(ledger)
    is_far = here.is_far(FAR if ledger.has_groups else FAR_ALONE)
    if not here.total or not (is_far or (ledger.has_groups and here.has_far_class)):
        return None
    best = closest(ledger)
    is_closer = best is not None and best[1].amiss <= CLOSER * here.amiss
    if not is_closer and not is_far:
        return None
    shares = "/".join(f"{100 * share:.3g}" for share in here.wanted)
    wanted = "/".join(f"{share * here.total:.0f}" for share in here.wanted)
    line = (
        f"by the hash of the {'groups' if ledger.has_groups else 'samples'} "
        f"{'/'.join(here.splits)} hold {here.shown()} samples, where {shares} % are {wanted}"
    )
    if best is None or not is_closer:
        few = ", as its groups are few or unequal" if ledger.has_groups else ""
        return line + (f", and no other prepare.split_seed comes much closer{few}" if best else "")
    seed, found = best
    line += f": prepare.split_seed={seed} gives {found.shown()}"
    if ledger.has_groups:
        worst = int(np.argmax(here.amiss_by_class()))
        line += (
            f", and of class {ledger.classes[worst]!r} {found.shown(worst)} in place of "
            f"{here.shown(worst)}"
        )
    return f"{line}; it gives another test set, so choose before you compare results"


def closest(ledger: Ledger) -> tuple[int, Counts] | None:
    """The seed that comes closest to the wanted shares, of all samples and of each class, and what
    it gives. None if there are too many samples or groups to try seeds."""
    here, classes = _present(ledger), len(ledger.classes)
    numbers: dict[str, int] = {}
    units: list[tuple[int, int, int]] = []  # number of the group or sample, class index, samples
    for name, label, count in ledger.units():
        units.append((numbers.setdefault(name, len(numbers)), label, count))
        if len(numbers) * FEWEST_SEEDS > MOST_HASHES:
            return None
    if not units:
        return None
    number, label, count = np.array(units).T
    place = {split: index for index, split in enumerate(here.splits)}

    def counts_of(seed: int) -> Counts:
        split = np.array([place[split_of(name, seed, *ledger.shares)] for name in numbers])
        cells = np.bincount(split[number] * classes + label, count, len(place) * classes)
        return here.with_counts(cells.astype(np.int64).reshape(len(place), classes))

    tried = ((seed, counts_of(seed)) for seed in range(min(SEEDS, MOST_HASHES // len(numbers))))
    return min(tried, key=lambda one: one[1].amiss)


def _present(ledger: Ledger) -> Counts:
    val, test = ledger.shares
    shares = dict(zip(SPLITS, (1 - val - test, val, test), strict=True))
    splits = tuple(split for split in SPLITS if shares[split])
    counts = np.zeros((len(splits), len(ledger.classes)), dtype=np.int64)
    for split, label, count in ledger.hashed_counts():
        counts[splits.index(split), label] = count
    return Counts(splits, np.array([shares[split] for split in splits]), counts)
