"""Rows of numbers to look at: a table of colours, a line per sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.base.figure import png, same_for_everyone


@same_for_everyone()
def grids_side_by_side(grids: Sequence[Any], columns: int) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(grids), 6), layout="constrained")
    for axes, (rows, captions, title) in zip(
        figure.subplots(1, len(grids), squeeze=False)[0], grids, strict=True
    ):
        axes.imshow(np.stack(rows), aspect="auto")
        axes.set_yticks(range(len(rows)), [caption.replace("\n", " ") for caption in captions])
        axes.set_title(title)
    return png(figure)
