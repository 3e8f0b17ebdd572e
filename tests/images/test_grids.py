import pytest
from PIL import ImageFont

from src.images.grids import TILE, _font, _shorten


def test_a_long_caption_is_cut_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured whole for each letter taken off, one of 1500 letters took a second."""
    measured: list[str] = []
    measure = ImageFont.FreeTypeFont.getlength

    def measured_too(font: ImageFont.FreeTypeFont, text: str) -> float:
        measured.append(text)
        return measure(font, text)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", measured_too)
    font = _font(12)
    assert _shorten("i" * 1500, font) == _shorten("i" * 90, font) == "i" * 28 + "…"
    assert max(map(len, measured)) <= TILE + 1
    assert _shorten("short", font) == "short"


def test_captions_need_no_library_of_the_system() -> None:
    """Pillow's other layout engine needs the system's libfribidi and places letters elsewhere."""
    assert _font(12).layout_engine == ImageFont.Layout.BASIC
