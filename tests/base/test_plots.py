"""The figures of results: the same bytes for everyone, with any class names."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from src.base.figure import NAME_LENGTH, shown_name
from src.base.imports import ROOT
from src.base.plots import confusion_matrix, curves, reliability_diagram
from src.images.grids import grids_side_by_side
from tests.conftest import python

DRAW = """
import hashlib
import numpy as np
from src.base.plots import confusion_matrix, curves, reliability_diagram
matrix = np.arange(9).reshape(3, 3)
for image in (
    confusion_matrix(matrix, ["cat", "dog", "\\u732b"], "test: 36 images"),
    curves({"loss": {"train": [3, 2, 1], "val": [3, 2.5, 2]}}, "epoch"),
    reliability_diagram({"test": (np.arange(3), np.array([0, 0.5, 0.9]), np.array([0, 0.4, 1]))}),
):
    print(hashlib.sha256(image).hexdigest())
"""
RC = """
font.size: 17
font.family: serif
savefig.dpi: 40
savefig.bbox: tight
savefig.facecolor: yellow
axes.grid: True
axes.prop_cycle: cycler(color=['red', 'green'])
lines.linewidth: 5
image.interpolation: bilinear
image.origin: lower
legend.loc: lower left
"""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    found: list[Figure] = []
    draw = Figure.savefig

    def look(figure: Figure, *args: Any, **options: Any) -> None:
        draw(figure, *args, **options)
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", look)
    return found


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def test_settings_of_the_user_change_no_byte(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(RC)
    plain = python(ROOT, "-c", DRAW, MATPLOTLIBRC="")
    mine = python(ROOT, "-c", DRAW, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), MPLBACKEND="svg")
    assert len(plain.stdout.split()) == 3
    assert mine.stdout == plain.stdout
    assert mine.stderr == plain.stderr == ""


def test_settings_of_the_caller_are_as_before() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 17, "axes.grid": True}):
        curves({"loss": {"train": [2, 1]}}, "epoch")
        assert matplotlib.rcParams["font.size"] == 17
        assert matplotlib.rcParams["axes.grid"] is True


ODD_NAMES = ["$a$", "$\\frac{", "$", "a\nb", "\t", " ", "猫", "\u200b", "x" * 250]
ODD_NAMES += ["_", "%s", "{}", "\\", "ق"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_class_name_is_drawn_without_a_word(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = confusion_matrix(np.eye(2), ["other", "n" * NAME_LENGTH], "test")
        image = confusion_matrix(np.eye(2), ["other", shown_name(name)], f"test {name[:4]}")
        grids_side_by_side([([np.zeros((8, 8, 1), dtype=np.uint8)], [name], name)], 1)
    assert capfd.readouterr() == ("", "")
    assert pixels(image).shape == pixels(plain).shape
    # The matrix keeps its room: a dark cell where the first count stands.
    blue = (pixels(image) == (8, 48, 107)).all(axis=2)
    assert blue.sum() > 0.05 * blue.size


def test_dollars_are_written_as_they_are(drawn: list[Figure]) -> None:
    confusion_matrix(np.eye(2), ["$a$", "b"], "$t$")
    [axes] = drawn[0].axes
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
    assert not any(label.get_parse_math() for label in labels)
    assert [label.get_text() for label in labels] == ["$a$", "b", "$a$", "b", "$t$"]


def test_shown_names_are_short_and_differ() -> None:
    assert shown_name("Steller's sea eagle") == "Steller's sea eagle"
    assert shown_name("猫") == "猫"
    assert shown_name("a\nb") == "'a\\nb'"
    assert shown_name(" ") == "' '"
    long = ["category of something or other 01", "category of something or other 02"]
    shown = [shown_name(name) for name in long]
    assert all(len(name) == NAME_LENGTH for name in shown)
    assert len(set(shown)) == 2


def test_reliability_diagram_shows_bins_with_images_alone(drawn: list[Figure]) -> None:
    counts, confidence = np.array([0, 7, 0, 12]), np.array([0, 0.4, 0, 0.9])
    accuracy = np.array([0, 0.5, 0, 0.75])
    titles = ("val", "test: ECE 0.1")
    image = reliability_diagram(dict.fromkeys(titles, (counts, confidence, accuracy)))
    top, _, bottom, _ = drawn[0].axes
    assert [axes.get_title() for axes in drawn[0].axes] == ["val", "test: ECE 0.1", "", ""]
    bars: Any = top.patches
    assert [bar.get_height() for bar in bars] == [0.5, 0.75]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0.375, 0.875])
    assert [text.get_text() for text in bottom.texts] == ["", "7", "", "12"]
    points: Any = top.lines[1].get_xydata()
    assert points.tolist() == [[0.4, 0.5], [0.9, 0.75]]
    assert pixels(image).shape == (540, 1000, 3)
