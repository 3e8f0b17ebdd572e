from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from src.preparation.sources.own import Sample


def own_source(params: Mapping[str, Any]) -> Iterator[Sample]:
    """Noise in which one colour is stronger; some samples of a day belong together."""
    for number in range(180):
        colour = number % params["yours.colours"]
        image = partial(noise, number, colour)
        yield Sample(
            image,
            ["red", "green", "blue"][colour],
            group=f"day {number // 3}",
            name=f"{number:03d}",
        )


def noise(number: int, colour: int) -> np.ndarray:
    """A function of the module, so that it reaches the worker processes: 20 x 20 x 3."""
    image = np.random.default_rng(number).integers(0, 160, (20, 20, 3), dtype=np.uint8)
    image[..., colour] += 60
    return image
