"""How the machine fares while a run is open: the names of MLflow's system metrics, at a calm rate.

MLflow's own monitor needs a server that answers every call; these samples go through the journal,
and its page "System metrics" draws them. One takes 0.1 ms of CPU, sending it to SQLite some 10 ms
(measured), every 30 s: less than 0.1 % of a core.
"""

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

FIRST = 5.0  # seconds until the first sample: after the imports and the first steps (choice)
INTERVAL = 30.0  # seconds between two samples (choice)
STOP_SECONDS = 2.0  # how long to wait for a sample that a driver holds up (choice)
PREFIX = "system/"


@contextmanager
def samples(
    root: Path, log_metrics: Callable[[Mapping[str, float], int], None], step: int
) -> Iterator[None]:
    """Log a sample every 30 s by `log_metrics(metrics, step)`, from a thread of its own, inside the
    block. Steps count from `step` on. What cannot be read is left out; nothing raises."""
    stop = threading.Event()

    def sample_until_stopped() -> None:
        with suppress(Exception):  # no number of a machine is worth a line while something trains
            psutil.cpu_percent()  # the first sample is the use since this call
            process, gpus = psutil.Process(), gpu_monitor()
            steps, pause = itertools.count(step), FIRST
            while not stop.wait(pause):
                metrics = sample(root, process, gpus)
                if stop.is_set():  # the driver took its time, and the journal may be closed
                    return
                log_metrics({PREFIX + key: metrics[key] for key in metrics}, next(steps))
                pause = INTERVAL

    thread = threading.Thread(target=sample_until_stopped, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_SECONDS)


def gpu_monitor() -> Any:
    """MLflow's reader of NVIDIA's GPUs, without its warning if one does not report its power; None
    without a driver, a GPU, or the package nvidia-ml-py."""
    if "mlflow" not in sys.modules:  # its import would slow down what trains beside this thread
        return None
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    try:
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        return GPUMonitor()
    except Exception:
        return None


def sample(root: Path, process: psutil.Process, gpus: Any = None) -> dict[str, float]:
    """CPU use since the last call, memory of the machine and of `process`, the disk that holds
    `root`, and the GPUs of `gpu_monitor`; megabytes are 10^6 bytes."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(root))
    metrics = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": round(memory.used / 1e6, 1),
        "system_memory_usage_percentage": round(100 * memory.used / memory.total, 1),
        "process_memory_usage_megabytes": round(process.memory_info().rss / 1e6, 1),
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": round(disk.used / 1e6, 1),
        "disk_available_megabytes": round(disk.free / 1e6, 1),
    }
    if gpus:
        gpus.clear_metrics()
        gpus.collect_metrics()
        metrics |= gpus.aggregate_metrics()
    return metrics
