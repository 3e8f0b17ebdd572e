"""Images that are nearly the same: hashes of 64 bits, close pairs, how much two images differ.

Integers throughout, in floats that hold them exactly: the same on every machine.
"""

import functools

import numpy as np

FREQUENCIES = 8  # per direction, so 64 bits
# Copies of photos, made again as JPEG of quality 30 to 75 or at half the size and then packed,
# differ in at most 4 bits (measured, 160 photos at 32, 64 and 128 px).
MOST_BITS = 4
ROTATIONS = range(0, 64, 4)
WINDOW = 64  # neighbours looked at in each order (choice; see `close_pairs`)
AT_ONCE = 2**20  # pairs to sort at a time, which bounds the memory (choice)


@functools.lru_cache(maxsize=4)
def _cosines(length: int) -> np.ndarray:
    """The first rows of the discrete cosine transform of `length` values, in 1024ths."""
    middles, rows = np.arange(length) + 0.5, np.arange(FREQUENCIES)[:, None]
    return np.round(1024 * np.cos(np.pi * middles * rows / length))


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits of an image (float64 H x W of whole numbers, at most 765): which of its lowest
    frequencies are above their median. The bit of the mean is always set: no hash is 0."""
    height, width = grey.shape
    # Below 2 ** 53 for sides of up to 4096, so that no order of summation rounds.
    values = (_cosines(height) @ grey @ _cosines(width).T).ravel()
    bits = values > np.median(values[1:])
    bits[0] = True
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def close_pairs(hashes: np.ndarray, groups: np.ndarray, most: int) -> tuple[np.ndarray, bool]:
    """Pairs of different groups whose hashes differ in at most MOST_BITS bits, the closest first:
    indices int64 M x 2, M <= `most`, and whether that left some out. Hash 0 stands for none.

    `hashes` uint64 N, `groups` int N. The hashes are sorted as numbers, once for each rotation of
    their bits, and each is compared with the next WINDOW (Charikar 2002; Manku, Jain and Das Sarma
    2007): N log N time however the hashes are spread, where buckets of equal bits would be
    quadratic for plain images. What it misses are close ones with many others in between.
    """
    there = np.flatnonzero(hashes)
    count = len(there)
    hashes, groups = hashes[there], groups[there]
    keys, new = np.empty(0, dtype=np.int64), [np.empty(0, dtype=np.int64)]
    left_out = False
    for rotation in ROTATIONS:
        shift = np.uint64(rotation)
        rotated = hashes if not rotation else hashes << shift | hashes >> np.uint64(64) - shift
        order = np.argsort(rotated, kind="stable")
        values, owners = hashes[order], groups[order]
        last = min(WINDOW, count - 1)
        for step in range(1, last + 1):
            bits = np.bitwise_count(values[step:] ^ values[:-step])
            found = np.flatnonzero((bits <= MOST_BITS) & (owners[step:] != owners[:-step]))
            one, two = order[found], order[found + step]
            low, high = np.minimum(one, two), np.maximum(one, two)
            new.append((bits[found].astype(np.int64) * count + low) * count + high)
            if step == last or sum(map(len, new)) > AT_ONCE:
                # Sorted as numbers, the closest come first, each pair once.
                keys, new = np.unique(np.concatenate([keys, *new])), []
                left_out |= len(keys) > most
                keys = keys[:most]
    pairs = np.stack([keys // count % count, keys % count], axis=1) if count else np.empty((0, 2))
    return there[pairs.astype(np.int64)], left_out


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much each of the images `first` (uint8 N x ...) differs from that in `second`: float64 N,
    0 = the same up to brightness, near 1 = unrelated. The mean absolute difference of pixels beyond
    that of the means, as a share of the plainer one's mean absolute deviation, since images with
    large empty parts differ little whatever they show."""
    one, two = (images.reshape(len(images), -1).astype(np.float64) for images in (first, second))
    one -= one.mean(axis=1, keepdims=True)
    two -= two.mean(axis=1, keepdims=True)
    spread = np.minimum(np.abs(one).mean(axis=1), np.abs(two).mean(axis=1))
    return np.abs(one - two).mean(axis=1) / np.maximum(spread, 1e-9)
