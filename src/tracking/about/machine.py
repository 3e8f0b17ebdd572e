"""What an MLflow run says about the machine."""

import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def tags() -> dict[str, str]:
    """What can change the bits of a result besides code, data and versions."""
    found = {
        "machine.cpu": _cpu(),
        "machine.platform": platform.platform(),
        "machine.python": platform.python_version(),
    }
    if torch := sys.modules.get("torch"):  # never imported for a tag
        found["machine.capability"] = torch.backends.cpu.get_cpu_capability()
        found["machine.threads"] = str(torch.get_num_threads())
    # Not through torch, which would claim memory on a GPU that the stage may not use.
    listed = output("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
    rows = [line.split(", ", 1) for line in (listed or "").splitlines() if ", " in line]
    if rows:
        found["machine.driver"] = rows[0][0]
        found["machine.gpu"] = ", ".join(name for _, name in rows)
    return found


def _cpu() -> str:
    """The name of the processor, such as `Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz`."""
    with suppress(OSError):  # there is none on macOS
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    name = output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return (name or platform.machine()).strip()


def output(*command: str) -> str | None:
    """What a command prints; None if missing or failed, or after 20 s (a GPU driver takes some)."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
