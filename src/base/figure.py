"""How matplotlib draws here: the same bytes for the same numbers, on every machine."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
NAME_LENGTH = 24  # characters of a class name, so that names leave room for the drawing (choice)


@contextmanager
def same_for_everyone() -> Iterator[None]:
    """Draw with matplotlib's own settings, whatever a matplotlibrc says, and with text as it is: a
    class name with dollar signs is no formula."""
    import matplotlib

    settings: dict[Any, Any] = {
        **{key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"},
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A box for each missing character says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def shown_name(name: str) -> str:
    """A class name for a label in a figure: one visible line of at most NAME_LENGTH characters.
    What is left out is in the middle, since names that begin alike often differ at the end."""
    if not name.isprintable() or not name.strip():
        name = repr(name)
    if len(name) <= NAME_LENGTH:
        return name
    end = NAME_LENGTH // 2
    return name[: NAME_LENGTH - end - 1] + "…" + name[-end:]


def png(figure: "Figure") -> bytes:
    """The figure as PNG; without matplotlib's version in it, equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
