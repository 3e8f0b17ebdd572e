"""What libtiff says of a damaged file: it prints it on stderr, hundreds of lines without a name.

Pillow leaves libtiff its own printing, so the two functions that libtiff calls are replaced here,
through the library that Pillow brings. Where it hides them, nothing changes.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

LONGEST = 200  # characters of a message
MOST = 20  # messages of a file (choice)
# (module, format, arguments): as `TIFFErrorHandler` in tiffio.h; a va_list goes as a pointer.
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

_here = threading.local()  # `said`: the list of the file that this thread reads


@contextmanager
def messages_of_libtiff(said: list[str]) -> Iterator[None]:
    """Add the errors of libtiff in the block to `said`, and print nothing."""
    _silence()
    _here.said = said
    try:
        yield
    finally:
        _here.said = None


@cache
def _silence() -> tuple[object, ...]:
    """Replace what prints. Returns what must live as long as the process."""
    from PIL import _imaging

    try:
        library = ctypes.CDLL(_imaging.__file__)  # its symbols, and those of what it links to
        set_error, set_warning = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
        print_into = ctypes.CDLL(None).vsnprintf
    except (AttributeError, OSError):
        return ()

    def note(module: bytes | None, form: bytes, arguments: int) -> None:
        said = getattr(_here, "said", None)
        if said is None or len(said) == MOST:
            return
        text = ctypes.create_string_buffer(LONGEST)
        print_into(text, ctypes.c_size_t(LONGEST), form, ctypes.c_void_p(arguments))
        said.append(" ".join(text.value.decode("utf-8", "replace").split()))

    handler = HANDLER(note)
    set_error(handler)
    set_warning(None)
    return (library, handler)
