"""Stage `overfit-check`: can this set-up learn at all? `train` starts only if it can.

Builds its nets with the functions that `train` uses, so that a bug in those is seen here, in
seconds. Writes the report, the verdict, the curves, and the batch as it enters the net.
"""

from pathlib import Path

from src import stage
from src.errors import GateError

DATA, RESULTS = "data/subset", Path("results/overfit_check")


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
    from src.training.device import prepare_device
    from src.training.setup import Setup, build_setup

    params = run.params
    device = prepare_device(params["machine.device"], params["threads"])
    data = PackedSplit(DATA, "train")
    may_stop = params["overfit_check.on_fail"] == "stop"
    batch_size, lr, seed = params["batch_size"], params["lr"], params["seed"]
    steps = steps_per_epoch(len(data), batch_size)

    def make_setup(factor: float) -> Setup:
        return build_setup(
            params, data.meta, device, steps=steps, epochs=1,
            schedule="constant", warmup=0, lr=lr * factor,
        )  # fmt: skip

    with tracking.start(run) as log:
        log.log_input(DATA, run.deps_md5[DATA], "train")
        checks, climbs = climb_ladder(make_setup, data, batch_size, lr, seed)
        report = Report(checks, strict=params["overfit_check.strict"])
        augmentation = Augmentation(params["augment_crop"], params["augment_flip"])
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


if __name__ == "__main__":
    stage.run("overfit-check", main)
