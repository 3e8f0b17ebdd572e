"""What runs stages and tools. Nothing here can change an output: no file of it is a dep."""

import os
import signal
import sys
from types import FrameType


def _interrupted(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


# A stage or tool imports this first, and much after it, before `command.guarded` takes its signals:
# nothing has begun then that would have to be put away.
_main = getattr(sys.modules.get("__main__"), "__spec__", None)
_is_ours = _main is not None and _main.name.startswith("src.")
if _is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)
