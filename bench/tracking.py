"""What tracking costs the loop: `python -m bench.tracking [--pairs 7]`.

The same 2,000 steps with a real local MLflow store and with `machine.tracking: false`, interleaved.
Counted is the processor time of the thread that trains: what it has to do for tracking itself, and
not what a busy machine takes away.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from src.stage import Stage
from tests.conftest import SMALL, copy_project, run_stage, set_params, working_in

STEPS = 2000
BATCH = 16


def seconds(project: Path, tracked: bool) -> float:
    """Processor time of this thread for STEPS steps."""
    from src.data.augment import Augmentation
    from src.data.batches import steps_per_epoch
    from src.data.mix import Mix
    from src.data.packed import PackedSplit
    from src.terminal import Progress
    from src.tracking import run as tracking
    from src.training.checkpoint import Checkpoint
    from src.training.device import prepare_device
    from src.training.loop import Plan, Training
    from src.training.setup import build_setup

    set_params(project, tracking="true" if tracked else "false")
    with working_in(project):
        stage = Stage("train")
        device = prepare_device("cpu", 1)
        data = PackedSplit("data/prepared", "train")
        val = PackedSplit("data/prepared", "val")
        steps = steps_per_epoch(len(data), BATCH)
        setup = build_setup(stage.params, data, device, steps)
        plan = Plan(STEPS // steps, BATCH)
        mix = Mix.from_params(stage.params, len(data.meta["classes"]))
        training = Training(setup, data, val, plan, Augmentation(2), mix)
        checkpoint = Checkpoint(project, "bench", 1e9, {})
        with tracking.start(stage) as log:

            def on_epoch(row: dict[str, Any]) -> None:
                log.log_metrics({key: row[key] for key in row if key != "epoch"}, row["epoch"])

            progress = Progress(plan.epochs, steps, BATCH, 0, "off")
            start = time.thread_time()
            training.run(checkpoint, progress, on_epoch)
            return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tracking", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    count = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        set_params(project, **{**SMALL, "synthetic_pictures": 450})
        for name in ("prepare", "subset", "overfit-check"):
            run_stage(project, name)
        ratios = []
        for number in range(count + 1):
            off, on = seconds(project, tracked=False), seconds(project, tracked=True)
            if number:  # the first pair warms up
                ratios.append(off / on)
                print(f"off {off:.2f} s, on {on:.2f} s: {off / on:.4f}", flush=True)
        print(f"speed with tracking: {statistics.median(ratios):.4f} of that without")


if __name__ == "__main__":
    main()
