"""What tracking costs the loop: `python -m bench.tracking [--pairs 7]`.

2,000 steps that log to a real local MLflow store and the same 2,000 that do not, one epoch of each
in turn. Counted is the processor time of the thread that trains: what it has to do for tracking
itself, and not what a busy machine takes away.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from src.plumbing.stage import Stage
from src.plumbing.terminal import Progress
from tests.conftest import SMALL, copy_project, run_stage, set_params, working_in

STEPS = 2000


def seconds(project: Path) -> tuple[float, float]:
    """Processor time of this thread for STEPS steps without and with tracking."""
    from src.tracking import run as tracking

    with working_in(project):
        stage = Stage("train")
        off, on = _Alternating(stage), _Alternating(stage)
        with tracking.start(stage) as log:
            for _ in range(STEPS // off.training.steps_per_epoch):
                off.one_epoch(lambda row: None)
                on.one_epoch(log.log_epoch)
    return off.seconds, on.seconds


class _Alternating:
    """A training that goes on for an epoch at a time, and how long its thread has worked."""

    def __init__(self, stage: Stage):
        from src.data.packed import PackedSplit
        from src.data.readers import Reading
        from src.model.device import prepare_device
        from src.training.checkpoint import Checkpoint
        from src.training.loop import Training

        device = prepare_device("cpu", 1)
        data, val = PackedSplit("data/prepared", "train"), PackedSplit("data/prepared", "val")
        self.training = Training(stage.params, data, val, device, Reading())
        self.checkpoint = Checkpoint(Path("unused"), "bench", 1e9, {})
        self.seconds = 0.0

    def one_epoch(self, on_epoch: Callable[[dict[str, float]], None]) -> None:
        training = self.training
        training.plan = replace(training.plan, epochs=training.epoch + 1)
        progress = Progress(
            1, training.steps_per_epoch, training.plan.step_size, "images", 0, "off"
        )
        start = time.thread_time()
        training.run(self.checkpoint, progress, on_epoch)
        self.seconds += time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tracking", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    count = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        set_params(project, **{**SMALL, "synthetic_pictures": 450, "tracking": "true"})
        for name in ("prepare", "subset", "overfit-check"):
            run_stage(project, name)
        ratios = []
        for number in range(count + 1):
            off, on = seconds(project)
            if number:  # the first pair warms up
                ratios.append(off / on)
                print(f"off {off:.2f} s, on {on:.2f} s: {off / on:.4f}", flush=True)
        print(f"speed with tracking: {statistics.median(ratios):.4f} of that without")


if __name__ == "__main__":
    main()
