import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.about import system
from tests.tracking.tracked_project import evaluate, history, runs, train, wait_until

CPU = "system/cpu_utilization_percentage"
MEMORY = "system/system_memory_usage_megabytes"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "FIRST", 0.01)
    monkeypatch.setattr(system, "INTERVAL", 0.01)


def train_for_samples(count: int) -> None:
    """A training that is interrupted after so many samples in its journal."""
    with tracking.start(Stage("train")) as run:
        assert isinstance(run, tracking.TrackedRun)
        first = run._journal.next_step(system.PREFIX)
        wait_until(lambda: run._journal.next_step(system.PREFIX) >= first + count)
        raise KeyboardInterrupt


def test_samples_are_stored_and_their_steps_go_on(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_for_samples(3)
    [stored] = runs(project)
    first = history(project, stored, CPU)
    assert [step for step, _ in first] == list(range(len(first)))
    with pytest.raises(KeyboardInterrupt):
        train_for_samples(2)
    [stored] = runs(project)
    points = history(project, stored, MEMORY)
    assert [step for step, _ in points] == list(range(len(points)))
    assert len(points) >= len(first) + 2
    total = psutil.virtual_memory().total / 1e6
    assert all(0.001 * total < value < total for _, value in points)
    assert all(0 <= value <= 100 for _, value in history(project, stored, CPU))
    own = history(project, stored, "system/process_memory_usage_megabytes")
    assert 50 < own[0][1] < 0.5 * total


def test_evaluate_adds_no_samples(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    [stored] = runs(project)
    before = len(history(project, stored, CPU))
    monkeypatch.setattr(system, "samples", pytest.fail)
    evaluate()
    assert len(history(project, stored, CPU)) == before


def test_a_sample_costs_little(project: Path) -> None:
    process = psutil.Process()
    started = time.process_time()
    for _ in range(20):
        system.sample(project, process)
    assert (time.process_time() - started) / 20 < 0.001 * 30  # 0.1 % of a core at one in 30 s


def test_gpus_are_sampled_if_their_library_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for pynvml: there is no GPU here. The second GPU does not tell its power."""
    import mlflow  # noqa: F401 (the samples do not import it themselves)

    nvml = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def power(handle: int) -> int:
        if handle:
            raise NVMLError
        return 150_000

    memory = SimpleNamespace(used=2e9, total=8e9)
    nvml.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: memory,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40 + handle),
        nvmlDeviceGetPowerUsage=power,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 300_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    reader = "mlflow.system_metrics.metrics.gpu_monitor"
    monkeypatch.delitem(sys.modules, reader, raising=False)  # it looks for pynvml once
    both = {"memory_usage_percentage": 25.0, "memory_usage_megabytes": 2000.0}
    gpus = system.gpu_monitor()
    for _ in range(2):
        metrics = system.sample(project, psutil.Process(), gpus)
    assert {key: value for key, value in metrics.items() if key.startswith("gpu")} == {
        **{f"gpu_{index}_{key}": value for index in (0, 1) for key, value in both.items()},
        "gpu_0_utilization_percentage": 40.0,
        "gpu_1_utilization_percentage": 41.0,
        "gpu_0_power_usage_watts": 150.0,
        "gpu_0_power_usage_percentage": 50.0,
    }
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    monkeypatch.delitem(sys.modules, reader)
    assert system.gpu_monitor() is None
