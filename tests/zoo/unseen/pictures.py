"""Synthetic pictures: uint8 (N, H, W, C) with int64 labels (N,), a pure function of the seed."""

from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

Labelled = tuple[np.ndarray, np.ndarray]


def _labels(rng, n, classes, shares=None):
    labels = np.arange(n) % classes if shares is None else rng.choice(classes, n, p=shares)
    return rng.permutation(labels).astype(np.int64)


def _grid(size):
    return np.mgrid[0:size, 0:size].astype(np.float32)[:, None]  # y and x, each (1, size, size)


def _finish(pictures):
    return np.clip(pictures, 0, 255).astype(np.uint8)


@lru_cache(None)
def gratings(n, classes=8, size=24, channels=3, frequencies=1, noise=30, seed=0) -> Labelled:
    """Noisy sine gratings; the class is the orientation, then the frequency."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, n, classes)
    y, x = _grid(size)
    angles = classes // frequencies
    angle = (labels % angles) * np.pi / angles
    period = size / (2.5 + 2.0 * (labels // angles))
    angle, period = angle[:, None, None], period[:, None, None]
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    contrast = rng.uniform(40, 90, (n, 1, 1))
    wave = contrast * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
    tint = rng.uniform(0.4, 1.0, (n, 1, 1, channels))
    clutter = rng.normal(0, noise, (n, size, size, channels))
    return _finish(120 + wave[..., None] * tint + clutter), labels


@lru_cache(None)
def shapes(n, classes=5, size=32, channels=3, seed=0) -> Labelled:
    """A disc, square, triangle, cross or ring of any colour, somewhere on a dark noisy ground."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, n, classes)
    y, x = _grid(size)
    radius = rng.uniform(0.24, 0.36, (n, 1, 1)) * size
    dy, dx = (g - size / 2 - rng.uniform(-0.1, 0.1, (n, 1, 1)) * size for g in (y, x))
    reach, square = np.hypot(dx, dy), np.maximum(abs(dx), abs(dy))
    forms = [
        reach < radius,
        square < 0.85 * radius,
        (dy < 0.7 * radius) & (dy > 2 * abs(dx) - 1.1 * radius),
        (np.minimum(abs(dx), abs(dy)) < 0.22 * radius) & (square < radius),
        (reach < radius) & (reach > 0.62 * radius),
    ]
    mask = np.choose(labels[:, None, None], forms[:classes])[..., None]
    colour = rng.uniform(110, 250, (n, 1, 1, channels))
    ground = rng.normal(50, 18, (n, size, size, channels))
    return _finish(np.where(mask, colour + ground - 50, ground)), labels


@lru_cache(None)
def cells(n, shares=(0.62, 0.22, 0.11, 0.05), size=20, seed=0) -> Labelled:
    """Grey fields with 1, 2, 3 or 4 bright spots, as unequal in number as `shares`."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, n, len(shares), shares)
    y, x = _grid(size)
    corner = np.array([[0.27, 0.27], [0.27, 0.73], [0.73, 0.27], [0.73, 0.73]]) * size
    order = np.argsort(rng.random((n, 4)), axis=1)
    light = np.zeros((n, size, size))
    for spot in range(4):
        centre = corner[order[:, spot]] + rng.uniform(-0.1, 0.1, (n, 2)) * size
        far = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2
        there = (labels >= spot)[:, None, None]
        light += there * rng.uniform(90, 150, (n, 1, 1)) * np.exp(-far / (2 * 1.7**2))
    return _finish((50 + light + rng.normal(0, 12, light.shape))[..., None]), labels


@lru_cache(None)
def tiles(n, classes=12, size=24, seed=0) -> Labelled:
    """Red, green, blue or yellow tiles with stripes, checks or dots; class = 3 * colour + form."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, n, classes)
    y, x = _grid(size)
    shift = rng.uniform(0, 6, (2, n, 1, 1))
    u, v = (x + shift[0]) % 6 < 3, (y + shift[1]) % 6 < 3
    form = np.choose((labels % 3)[:, None, None], [u, u ^ v, u & v])
    hue = np.array([[190, 60, 50], [60, 170, 60], [50, 60, 190], [180, 170, 40]])[labels // 3]
    paint = hue[:, None, None] + rng.normal(0, 16, (n, 1, 1, 3))
    light = 0.45 + 0.55 * form[..., None]
    return _finish(paint * light + rng.normal(0, 15, (n, size, size, 3))), labels


@lru_cache(None)
def textures(n, classes=4, size=16, seed=0) -> Labelled:
    """Grey noise that is smooth over a class-dependent length; classes 2 and up along one axis."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, n, classes)
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]
    reach = np.array([[3.0, 3.0], [0.7, 0.7], [3.5, 0.4], [0.4, 3.5]])[labels][:, :, None, None]
    blur = np.exp(-2 * np.pi**2 * (0.5 * reach[:, 0] ** 2 * fy**2 + 0.5 * reach[:, 1] ** 2 * fx**2))
    field = np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (n, size, size))) * blur).real
    field /= field.std((1, 2), keepdims=True)
    return _finish((128 + 42 * field + rng.normal(0, 8, field.shape))[..., None]), labels


@lru_cache(None)
def digits(size=16, seed=0) -> Labelled:
    """scikit-learn's 1,797 digits enlarged to 16 px, shuffled: pictures, labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    large = np.kron(found.images[order], np.ones((size // 8, size // 8)))
    return _finish(large[..., None] * (255 / 16)), found.target[order].astype(np.int64)


def statistics(pictures):
    """Mean and standard deviation of each channel on the scale 0..1, rounded as people do."""
    flat = pictures.reshape(-1, pictures.shape[-1]) / 255
    return [round(float(v), 3) for v in flat.mean(0)], [round(float(v), 3) for v in flat.std(0)]


class Pictures(Dataset):
    """Items: a normalised float32 tensor (C, H, W), augmented before, and an int label."""

    def __init__(self, pictures, labels, mean, std, augment=None):
        self.pictures, self.labels, self.augment = pictures, labels, augment
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))

    def __len__(self):
        return len(self.labels)

    def to_tensor(self, index):
        return torch.from_numpy(self.pictures[index].copy()).permute(2, 0, 1).float() / 255

    def __getitem__(self, index):
        picture = self.to_tensor(index)
        if self.augment is not None:
            picture = self.augment(picture)
        return (picture - self.mean) / self.std, int(self.labels[index])


def moved(picture, by=2):
    """Move a (C, H, W) picture by up to `by` pixels each way."""
    dy, dx = torch.randint(-by, by + 1, (2,)).tolist()
    return torch.roll(picture, (dy, dx), (1, 2))


def flipped(picture):
    """Mirror a (C, H, W) picture, half of the time."""
    return picture.flip(2) if torch.rand(()) < 0.5 else picture
