"""Small data sets of the zoo: scikit-learn's digits and drawn shapes, as float tensors in 0..1."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from src.images.sources.shapes import draw_shape

Split = tuple[Tensor, Tensor]


@lru_cache(maxsize=8)
def digits(size: int, classes: int = 10) -> tuple[Split, Split]:
    """Handwritten digits as N x 1 x size x size with their labels (int64 N), for training and for
    validation (every fourth image). `size` is a multiple of 8: pixels are repeated."""
    from sklearn.datasets import load_digits

    data = load_digits()
    keep = data.target < classes
    grey = data.images[keep].astype(np.float32) / 16
    large = np.kron(grey, np.ones((1, size // 8, size // 8), np.float32))
    x, y = torch.from_numpy(large)[:, None], torch.from_numpy(data.target[keep]).long()
    val = torch.arange(len(y)) % 4 == 3
    return (x[~val].clone(), y[~val].clone()), (x[val].clone(), y[val].clone())


@lru_cache(maxsize=32)
def shapes(
    size: int, classes: int, train: int, val: int, first: int = 0, step: int = 1
) -> tuple[Split, Split]:
    """Coloured shapes as N x 3 x size x size in random order: `train` and `val` images of each
    class `first`, `first + step`, ..."""
    wanted = [first + step * label for label in range(classes)]

    def draw(start: int, count: int) -> Split:
        pairs = [(k, n) for k in range(classes) for n in range(start, start + count)]
        order = np.random.default_rng(size + classes).permutation(len(pairs))
        images = [np.asarray(draw_shape(wanted[pairs[i][0]], pairs[i][1], size)) for i in order]
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        return x.contiguous(), torch.tensor([pairs[i][0] for i in order])

    return draw(0, train), draw(train, val)


@lru_cache(maxsize=8)
def codes(size: int, classes: int, train: int, val: int, channels: int = 3) -> tuple[Split, Split]:
    """Textures for more classes than there are shapes: each class is a fixed pattern of coarse
    blocks, shown shifted, dimmed and noisy."""
    rng = np.random.default_rng(classes)
    patterns = rng.uniform(0.1, 0.9, (classes, channels, 4, 4)).astype(np.float32)

    def draw(seed: int, count: int) -> Split:
        draws = np.random.default_rng(seed)
        y = np.tile(np.arange(classes), count)
        draws.shuffle(y)
        x = np.kron(patterns[y], np.ones((1, 1, size // 4, size // 4), np.float32))
        shift = draws.integers(0, 3, (len(y), 2))
        x = np.stack([np.roll(p, tuple(s), (1, 2)) for p, s in zip(x, shift, strict=True)])
        x = x * draws.uniform(0.6, 1.0, (len(y), 1, 1, 1)) + draws.normal(0, 0.05, x.shape)
        return torch.from_numpy(x.clip(0, 1)).float(), torch.from_numpy(y).long()

    return draw(1, train), draw(2, val)


def channel_statistics(x: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of N x C x H x W."""
    return x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).tolist()
