"""Stage `overfit-check`: can this set-up learn at all? `train` starts only if it can.

Builds its nets with the functions that `train` uses, so that a bug in those is seen here, in
seconds. Writes the report, the verdict, the curves, and the batch as it enters the net.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from src import stage
from src.errors import GateError

if TYPE_CHECKING:
    from src.checks.report import Check

DATA, RESULTS = "data/subset", Path("results/overfit_check")
# What works against learning by heart is off, as are augmentation and mixing.
PLAIN = {
    "drop_rate": 0.0, "drop_path": 0.0, "ema": "none", "epochs": 1,
    "schedule": "constant", "warmup": 0, "decay_epochs": 1, "decay_rate": 0.5,
}  # fmt: skip


def main(run: stage.Stage) -> None:
    from src.checks.ladder import climb_ladder
    from src.checks.report import Report
    from src.data.augment import Augmentation
    from src.data.batches import steps_per_epoch
    from src.data.packed import PackedSplit
    from src.data.show import batch_picture
    from src.files import write_bytes, write_json
    from src.plots import curves
    from src.tracking import run as tracking
    from src.training.device import prepare_device, told_in_one_line
    from src.training.pretrained import disagreements
    from src.training.setup import Setup, build_setup

    params = run.params
    device = prepare_device(
        params["machine.device"], params["threads"], params["deterministic"], params["tf32"]
    )
    data = PackedSplit(DATA, "train")
    may_stop = params["overfit_check.on_fail"] == "stop"
    batch_size = params["batch_size"] * params["accumulate"]
    lr, seed = params["lr"], params["seed"]
    steps = steps_per_epoch(len(data), batch_size)

    def make_setup(factor: float) -> Setup:
        return build_setup(params, data, device, steps, **PLAIN, lr=lr * factor)

    with tracking.start(run) as log:
        log.log_input(DATA, run.deps_md5[DATA], "train")
        with told_in_one_line("overfit-check"):
            checks, climbs = climb_ladder(make_setup, data, batch_size, lr, seed)
        differences = disagreements(params["weights"], params["model"], data.meta)
        checks.append(judge_preprocessing(differences))
        report = Report(checks, strict=params["overfit_check.strict"])
        augmentation = Augmentation.from_params(params)
        panels = {
            id: {"loss": climb.loss, "accuracy": climb.accuracy} for id, climb in climbs.items()
        }
        write_json(RESULTS / "report.json", report.as_dict())
        write_bytes(RESULTS / "curves.png", curves(panels, "step (batch), epoch (subset)"))
        picture = batch_picture(data, make_setup(1.0), augmentation, batch_size)
        write_bytes(RESULTS / "batch.png", picture)
        print(f"overfit-check: {report.status}\n{report.as_text()}")

        # The report goes to MLflow first: a temporary workspace takes its files with it.
        for name in ("report.json", "curves.png", "batch.png"):
            log.log_artifact(RESULTS / name, "overfit_check")
        log.describe(report.as_markdown())
        log.set_tags({"verdict": report.status})
        if report.status == "fail" and may_stop:
            worst = next((check for check in checks if check.status == "fail"), None) or next(
                check for check in checks if check.status != "pass"
            )
            raise GateError(
                f"overfit-check: {worst.id} failed: {worst.message}; likely "
                f"{', '.join(worst.likely_causes) or 'unknown'}. train does not start "
                "(overfit_check.on_fail=report starts it all the same)"
            )
        write_json(RESULTS / "verdict.json", {"proceed": True})
        run.confirm_inputs()


def judge_preprocessing(differences: list[str]) -> "Check":
    """Whether the pictures are prepared as those that the weights were trained on."""
    from src.checks.report import Check

    if not differences:
        text = "pictures are prepared as the weights expect, or there are none"
        return Check("preprocessing", "pass", 0.0, 0.0, text)
    text = f"the weights were trained with {', '.join(differences)}"
    causes = ["preprocessing_differs_from_pretrained"]
    return Check("preprocessing", "warn", float(len(differences)), 0.0, text, causes)


if __name__ == "__main__":
    stage.run("overfit-check", main)
