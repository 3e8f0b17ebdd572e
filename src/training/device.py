"""Which device computes, with how many threads, and that it does so deterministically."""

import os

import torch

from src.errors import InputError


def prepare_device(choice: str, threads: int) -> torch.device:
    """The device for `machine.device`, with torch set up for reproducible results.

    auto = cuda, else mps, else cpu. Call before the first operation: the number of threads and
    the CUDA workspace cannot change later. InputError for a device that torch cannot use.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    has_mps = torch.backends.mps.is_available()
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
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
    return device


def machine_kind(device: torch.device) -> dict[str, str]:
    """What must be equal for the same bits: processor, instruction set, threads, device, torch."""
    from platform import machine, system

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "system": f"{system()} {machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "device": name,
        "torch": str(torch.__version__),
    }
