"""Which device computes, with how many threads, and how deterministically."""

import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from src.base import eager
from src.plumbing.errors import InputError

NO_MEMORY = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
ONE_SAMPLE = re.compile(r"Expected more than 1 value per channel when training")
NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def prepare_device(
    choice: str, threads: int, deterministic: str = "true", tf32: bool = False, fill: bool = False
) -> torch.device:
    """The device for `machine.device`, with torch set up for reproducible results.

    auto = cuda, else mps, else cpu. `deterministic`: true (an operation that gives other bits each
    time is an error), warn, or false. `fill`: new memory with NaN where it is not false, so that
    `overfit-check` sees code that reads what nobody wrote; others would write each result twice.
    Call before the first operation: the number of threads and the CUDA workspace cannot change
    later. InputError for a device that torch cannot use.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.set_num_threads(threads)
    eager.set_deterministic(deterministic != "false", warn_only=deterministic == "warn")
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = deterministic == "false"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    has_mps = torch.backends.mps.is_available()
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        if choice == "cpu" and (name := _gpu_of_the_driver()):
            raise InputError(
                f"params.yaml: machine.device is auto, and torch (built for CUDA "
                f"{torch.version.cuda}) cannot use the {name} that the driver shows: set cpu, "
                "update the driver, or install another build with `make setup TORCH=<index url>`"
            )
    device = torch.device(choice)
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": has_mps,
    }
    if not usable[device.type]:
        raise InputError(
            f"params.yaml: machine.device is {choice}, which torch cannot use here; "
            "set auto or cpu, or install a driver that fits this build of torch"
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what does not name a device, as a seed, means this one
    return device


def _gpu_of_the_driver() -> str | None:
    """The name of a GPU that NVIDIA's driver shows to this process; None without one. Training on
    the CPU in silence, because the driver is older than torch's build, has cost people days."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):  # hidden on purpose
        return None
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"GPU \d+: (.+?) \(", listed.stdout)
    return found[1] if listed.returncode == 0 and found else None


@contextmanager
def readable_errors(stage: str) -> Iterator[None]:
    """InputError of one line when memory runs out, BatchNorm gets a single sample, or an operation
    is not deterministic where that is an error; else its name on stderr, once."""
    named: set[str] = set()
    show = warnings.showwarning

    def show_named(message, category, filename, lineno, file=None, line=None):  # type: ignore[no-untyped-def]
        found = NOT_DETERMINISTIC.search(str(message))
        if not found:
            show(message, category, filename, lineno, file, line)
        elif found[1] not in named:
            named.add(found[1])
            print(f"{stage}: {found[1]} is not deterministic", file=sys.stderr, flush=True)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", NOT_DETERMINISTIC.pattern)
            warnings.showwarning = show_named
            yield
    except ValueError as error:
        if not ONE_SAMPLE.search(str(error)):
            raise
        raise InputError(
            f"{stage}: BatchNorm finds no variance in a step of one sample: give more samples, "
            "or take another model"
        ) from None
    except RuntimeError as error:
        if NO_MEMORY.search(str(error)):
            raise InputError(
                f"{stage}: not enough memory: lower prepare.size in params.yaml, or batch_size, "
                "which counts in training, or take another model or optimizer"
            ) from None
        found = NOT_DETERMINISTIC.search(str(error))
        if not found:
            raise
        raise InputError(
            f"params.yaml: deterministic is true, and {found[1]} has no deterministic "
            "implementation here: set deterministic to warn, or another model"
        ) from None


def machine_kind(device: torch.device) -> dict[str, str]:
    """What must be equal for the same bits: processor, instruction set, threads, device, torch."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": str(torch.__version__),
    }
