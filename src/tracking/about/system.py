"""How the machine fares while a run is open: MLflow's system metrics, at a calm rate.

The names are MLflow's (`system/cpu_utilization_percentage`, ...), so that its page "System metrics"
draws them. A sample takes 0.1 ms of CPU, sending it to a SQLite store some 10 ms (measured), every
30 s: less than 0.1 % of a core.
"""

import importlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

FIRST = 5.0  # seconds until the first sample: after the imports and the first steps (choice)
INTERVAL = 30.0  # seconds between two samples (choice)
STOP_SECONDS = 2.0  # how long to wait for a sample that a driver holds up (choice)
PREFIX = "system/"


class Sampler:
    """Notes a sample every 30 s by `note(metrics, step)`, from a thread of its own, inside a `with`
    block. Steps count from `first_step` on. What cannot be read is left out; nothing raises."""

    def __init__(self, root: Path, note: Callable[[Mapping[str, float], int], None], step: int):
        self._root, self._note, self._step = root, note, step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            psutil.cpu_percent()  # the use since this call is what the first sample tells
            process, gpus = psutil.Process(), _Gpus()
            pause = FIRST
            while not self._stop.wait(pause):
                metrics = {**sample(self._root, process), **gpus.sample()}
                if self._stop.is_set():  # the driver took its time, and the journal may be closed
                    return
                self._note({PREFIX + key: value for key, value in metrics.items()}, self._step)
                self._step += 1
                pause = INTERVAL
        except Exception:  # no number of a machine is worth a line while something trains
            return


def sample(root: Path, process: psutil.Process) -> dict[str, float]:
    """CPU use since the last call, memory of the machine and of `process`, and the disk that holds
    `root`; megabytes are 10^6 bytes."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(root))
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": round(memory.used / 1e6, 1),
        "system_memory_usage_percentage": round(100 * memory.used / memory.total, 1),
        "process_memory_usage_megabytes": round(process.memory_info().rss / 1e6, 1),
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": round(disk.used / 1e6, 1),
        "disk_available_megabytes": round(disk.free / 1e6, 1),
    }


class _Gpus:
    """NVIDIA's GPUs, if `pynvml` (of the package nvidia-ml-py) is installed and finds some."""

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._handles: list[Any] = []
        try:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            self._nvml = nvml
        except Exception:  # not installed, no driver, no GPU, or a driver of another version
            self._handles = []

    def sample(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            assert self._nvml is not None
            name = f"gpu_{index}_"
            for read in (_gpu_memory, _gpu_use, _gpu_power):
                try:  # some GPUs do not tell some of it (power, parts of a divided one)
                    values = read(self._nvml, handle)
                except self._nvml.NVMLError:
                    continue
                metrics |= {name + key: round(value, 1) for key, value in values.items()}
        return metrics


def _gpu_memory(nvml: Any, handle: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "memory_usage_percentage": 100 * memory.used / memory.total,
        "memory_usage_megabytes": memory.used / 1e6,
    }


def _gpu_use(nvml: Any, handle: Any) -> dict[str, float]:
    return {"utilization_percentage": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}


def _gpu_power(nvml: Any, handle: Any) -> dict[str, float]:
    watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    limit = nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
    return {"power_usage_watts": watts, "power_usage_percentage": 100 * watts / limit}
