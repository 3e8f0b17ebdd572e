"""What runs the work of a stage or tool: every ending is one line and an exit code."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from src.plumbing import own_code, process
from src.plumbing.errors import GateError, InputError

ACTIVATE = "`source .venv/bin/activate` first, or run `make setup`"


def parser(tool: str, docstring: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m src.<tool>`; the first line of the docstring describes the tool."""
    description = (docstring or "").partition("\n")[0]
    return argparse.ArgumentParser(prog=f"python -m src.{tool}", description=description)


def guarded(work: Callable[[], None]) -> int:
    """Do `work`; say in one line on stderr why it ended early. Returns the exit code."""
    process.handle_signals()
    process.share_cores()
    process.print_any_text()
    try:
        work()
    except InputError as error:
        return _say(str(error), 2)
    except GateError as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        process.end_at_once()
        return _say("interrupted", 130)
    except process.Terminated:
        process.end_at_once()
        return _say("terminated", 143)
    except ModuleNotFoundError as error:
        if (error.name or "src").split(".")[0] == "src":
            raise
        return _say(f"{error.name} is not installed in {sys.executable}: {ACTIVATE}", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _say(f"{error.filename}: the name is too long: give a shorter one", 2)
        if error.errno not in process.CANNOT_WRITE:
            raise
        if error.errno == errno.EACCES and (closed := _closed_part(error.filename)):
            return _say(f"{closed} cannot be read (no permission): `chmod u+rX {closed}`", 2)
        return _say(f"cannot write {error.filename or 'a file'}: {error.strerror}", 1)
    except Exception as error:
        if place := own_code.place_of(error):
            return _say(place, 2)
        raise
    return 0


def _say(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)  # a file's name may hold line breaks
    return code


def _closed_part(path: str | bytes | os.PathLike[str] | None) -> Path | None:
    """The part of a path that is there and may not be read or entered."""
    whole = Path(os.fsdecode(path)) if path else None
    for place in (whole, *whole.parents) if whole else ():
        if os.path.lexists(place):
            needed = os.R_OK | (os.X_OK if place.is_dir() else 0)
            return None if os.access(place, needed) else place
    return None
