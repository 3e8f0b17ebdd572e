"""Grids of small images with captions, drawn by Pillow alone (prepare imports no torch)."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 96  # pixels: small images are enlarged, large ones reduced to this
CAPTION = 16  # pixels per line of caption
TITLE = 20  # pixels per line of title
MARGIN = 4
GAP = 24  # pixels between grids

# Images (uint8, H x W x C, C = 1 or 3), their captions (lines split by a newline) below them, and
# the title (lines too; may be empty).
Grid = tuple[Sequence[np.ndarray], Sequence[str], str]


def grids_side_by_side(grids: Sequence[Grid], columns: int) -> bytes:
    """PNG bytes of grids of `columns` images each, from left to right."""
    lines = max([text.count("\n") + 1 for _, captions, _ in grids for text in captions], default=1)
    sheets = [_draw_grid(*grid, columns, lines) for grid in grids]
    width = sum(sheet.width for sheet in sheets) + GAP * (len(sheets) - 1)
    together = Image.new("RGB", (width, max(sheet.height for sheet in sheets)), "white")
    for number, sheet in enumerate(sheets):
        together.paste(sheet, (number * (sheet.width + GAP), 0))
    buffer = io.BytesIO()
    together.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_grid(
    images: Sequence[np.ndarray], captions: Sequence[str], title: str, columns: int, lines: int
) -> Image.Image:
    font = _font(12)
    rows = max(1, -(-len(images) // columns))
    head = TITLE * (title.count("\n") + 1) + MARGIN if title else MARGIN
    width = columns * (TILE + MARGIN) + MARGIN
    step = TILE + lines * CAPTION + MARGIN
    sheet = Image.new("RGB", (width, head + rows * step), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title.split("\n")):
        draw.text((MARGIN, 4 + number * TITLE), line, fill="black", font=_font(14))
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = MARGIN + (index % columns) * (TILE + MARGIN)
        y = head + (index // columns) * step
        squeezed = image[..., 0] if image.shape[-1] == 1 else image
        tile = Image.fromarray(np.ascontiguousarray(squeezed)).convert("RGB")
        sheet.paste(tile.resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        for number, line in enumerate(caption.split("\n")):
            draw.text(
                (x, y + TILE + number * CAPTION), _shorten(line, font), fill="black", font=font
            )
    return sheet


def _shorten(text: str, font: ImageFont.FreeTypeFont) -> str:
    kept = text[:TILE]  # no more than a letter per pixel: to measure a long text takes long
    if kept == text and font.getlength(text) <= TILE:
        return text
    while kept and font.getlength(kept + "…") > TILE:
        kept = kept[:-1]
    return kept + "…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's files: the same on every machine, with Greek and Cyrillic."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    # Pillow's other layout engine is there only where the system has libfribidi, and sets the
    # letters elsewhere: with it, equal images would be other bytes on other machines.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
