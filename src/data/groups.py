"""Samples of one group (a patient, a sender) err together, so they are resampled together.

Resampling groups (cluster bootstrap): Davison and Hinkley 1997, section 3.8. With few groups, below
some 20, its intervals are still too narrow.
"""

from collections.abc import Sequence

import numpy as np


def clusters(names: Sequence[str] | None) -> np.ndarray | None:
    """The number of each sample's group (int64 N, from 0), by the names of the groups; a sample
    without one, "", is alone. None where samples are resampled one by one: without names, with one
    group, which says nothing of others, and where each sample is alone."""
    if names is None:
        return None
    known: dict[str | int, int] = {}
    numbers = [known.setdefault(name or index, len(known)) for index, name in enumerate(names)]
    return np.array(numbers, dtype=np.int64) if 1 < len(known) < len(names) else None


def is_one_group(names: Sequence[str] | None) -> bool:
    """Whether all samples are of one group, of which there are several."""
    return names is not None and len(names) > 1 and bool(names[0]) and len(set(names)) == 1
