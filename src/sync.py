"""Send to MLflow what waits on this machine: `python -m src.sync`.

While a server is down, numbers, files and even runs wait in `.cache`. A stage that opens a run
sends what is its own; this sends everything once, and makes the runs that are missing. Runs whose
process is gone are closed as killed.
"""

import sys

from src.base.words import counted
from src.plumbing import command, workspace
from src.plumbing.errors import GateError, InputError
from src.tracking.journal import unsent
from src.tracking.store import store
from src.tracking.store.address import reason


def main() -> None:
    """The command line."""
    command.parser("sync", __doc__).parse_args()
    workspace.require_project()
    root = workspace.main_repository()
    name = store.name(root)
    try:
        sent = unsent.send_all(root)
    except InputError:
        raise
    except Exception as error:  # whatever MLflow raises for a store that cannot be reached
        if isinstance(error, OSError) and error.filename:  # of this disk
            raise
        trouble = f"sync: {name} does not answer ({reason(error)}): everything waits"
        raise GateError(trouble) from None
    print(summary(sent, name))
    if sent.trouble:
        more = (
            f" (and {counted(len(sent.trouble) - 1, 'more run')})" if len(sent.trouble) > 1 else ""
        )
        raise GateError(f"sync: {sent.trouble[0]}{more}")


def summary(sent: unsent.Sent, name: str) -> str:
    """What was sent to the store of this name, in one line."""
    parts = [
        f"{_some(sent.points, 'point')} and {_some(sent.files, 'file')} of "
        f"{_some(sent.runs, 'run')} sent to {name}"
        if sent.runs
        else f"nothing waited for {name}"
    ]
    parts += [f"created {_some(sent.made, 'run')}"] if sent.made else []
    parts += [f"closed {_some(sent.closed, 'run')} of dead processes"] if sent.closed else []
    parts += [f"left {_some(sent.busy, 'run')} to the writing process"] if sent.busy else []
    return "sync: " + "; ".join(parts)


def _some(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(command.guarded(main))
