"""Coloured shapes for first runs and tests: K classes that a small net can learn in seconds."""

import math

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "triangle", "cross", "ring", "star", "bar", "frame")
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 70),
    "blue": (60, 90, 235),
    "yellow": (240, 215, 40),
    "purple": (130, 50, 150),
    "white": (250, 250, 250),
}
# Shape varies first: up to eight classes differ by shape alone, and so also in grey.
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
OVERSAMPLING = 4  # drawn larger and reduced, for smooth edges at small sizes


def draw_shape(label: int, number: int, size: int) -> Image.Image:
    """Image `number` of class `label`, `size` x `size` pixels, RGB: the shape at a random place,
    size and angle on a dark, noisy ground. A function of its three arguments alone."""
    rng = np.random.default_rng([label, number, size])
    shape = SHAPES[label % len(SHAPES)]
    colour = tuple(COLOURS.values())[label // len(SHAPES)]
    side = size * OVERSAMPLING
    radius = side * rng.uniform(0.26, 0.38)
    centre = rng.uniform(radius * 1.1, side - radius * 1.1, 2)
    angle = rng.uniform(-0.35, 0.35)  # radians; small, so that a square never looks like a diamond

    mask = Image.new("L", (side, side))
    _draw(ImageDraw.Draw(mask), shape, centre, radius, angle)
    ground = rng.integers(0, 70, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    image.paste(colour, mask=mask.resize((size, size), Image.Resampling.BOX))
    return image


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, centre: np.ndarray, radius: float, angle: float
) -> None:
    def polygon(points: list[tuple[float, float]], fill: int = 255) -> None:
        cos, sin = math.cos(angle), math.sin(angle)
        turned = [
            (centre[0] + radius * (x * cos - y * sin), centre[1] + radius * (x * sin + y * cos))
            for x, y in points
        ]
        draw.polygon(turned, fill=fill)

    def disc(scale: float, fill: int = 255) -> None:
        draw.circle(tuple(centre), radius * scale, fill=fill)

    def rectangle(width: float, height: float, fill: int = 255) -> None:
        polygon([(-width, -height), (width, -height), (width, height), (-width, height)], fill)

    if shape == "disc":
        disc(0.95)
    elif shape == "ring":
        disc(1.0)
        disc(0.55, 0)
    elif shape == "square":
        rectangle(0.8, 0.8)
    elif shape == "frame":
        rectangle(0.9, 0.9)
        rectangle(0.5, 0.5, 0)
    elif shape == "bar":
        rectangle(1.0, 0.28)
    elif shape == "cross":
        rectangle(1.0, 0.28)
        rectangle(0.28, 1.0)
    elif shape == "triangle":
        polygon([(0, -1), (0.9, 0.75), (-0.9, 0.75)])
    else:  # star
        tips = [(1.0 if i % 2 == 0 else 0.4, math.pi * (i / 5 - 0.5)) for i in range(10)]
        polygon([(length * math.cos(a), length * math.sin(a)) for length, a in tips])
