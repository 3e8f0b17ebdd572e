"""Which split a sample belongs to: a hash of its content, group or path against fixed thresholds.

Changes of other samples move none, and no list is kept.
"""

import hashlib

SPLITS = ("train", "val", "test")


def hash_share(seed: int, content: str) -> float:
    """A number in [0, 1), uniform over contents, fixed for a seed and a content (any text)."""
    digest = hashlib.sha256(f"{seed}:{content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(hashed: str, seed: int, val_share: float, test_share: float) -> str:
    """`test`, `val` or `train` for a sha256 of a content, or any text. Test lies at the low end, so
    `val_share` never moves it."""
    share = hash_share(seed, hashed)
    if share < test_share:
        return "test"
    return "val" if share < test_share + val_share else "train"
