"""Stage `overfit-check`: can this set-up be trusted to learn? `train` starts only if it can.

Hands the training, made of the functions that `train` runs, to the battery of src/checks. Writes
the report, the verdict, the curves of what was learnt by heart, and the batch as it enters the net.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing import stage
from src.plumbing.errors import GateError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from src.checks import TrainingSetup
    from src.checks.report import Check, Report

DATA, RESULTS = "data/subset", Path("results/overfit_check")


def main(run: stage.Stage) -> None:
    from dataclasses import replace

    from src import checks
    from src.base.files import write_bytes, write_json
    from src.base.plots import curves
    from src.checks.battery import BATTERY
    from src.checks.waivers import parse_waivers
    from src.data.packed import PackedSplit
    from src.model.device import prepare_device, told_in_one_line
    from src.model.nets.pretrained import disagreements
    from src.plumbing import deps
    from src.plumbing.terminal import Checks
    from src.tracking import run as tracking
    from src.training.as_checked import checked_setup, first_batch_picture

    deps.require_declared(Path("dvc.yaml").read_text(encoding="utf-8"))
    params = run.params
    waivers = parse_waivers(params["overfit_check.waive"])
    device = prepare_device(
        params["machine.device"], params["threads"], params["deterministic"], params["tf32"],
        fill=True,
    )  # fmt: skip
    train, val = PackedSplit(DATA, "train"), PackedSplit(DATA, "val")
    may_stop = params["overfit_check.on_fail"] == "stop"

    def factory() -> "TrainingSetup":
        return checked_setup(params, train, val, device)

    with tracking.start(run) as log:
        for split in (train, val):
            log.log_input(f"{DATA}:{split.split}", run.deps_md5[DATA], split.split)
        with told_in_one_line("overfit-check"):
            try_one_step(factory)
        with Checks(len(BATTERY), params["machine.progress"]) as progress:
            report = checks.run(factory, on_check=progress.begin)
        differences = disagreements(params["weights"], params["model"], train.meta)
        report = replace(
            report,
            checks=[*report.checks, judge_preprocessing(differences)],
            strict=params["overfit_check.strict"],
        ).waive(waivers)
        write_json(RESULTS / "report.json", report.as_dict())
        panels = report.curves or {"overfit_batch": {"loss": [], "accuracy": []}}
        write_bytes(RESULTS / "curves.png", curves(panels, "step (batch), epoch (subset)"))
        picture = first_batch_picture(params, train, val, device)
        write_bytes(RESULTS / "batch.png", picture)
        print(f"overfit-check: {report.status}\n{report.as_text()}")

        # The report goes to MLflow first: a temporary workspace takes its files with it.
        for name in ("report.json", "curves.png", "batch.png"):
            log.log_artifact(RESULTS / name, "overfit_check")
        for learnt, series in report.curves.items():
            for step, values in enumerate(zip(*series.values(), strict=True), 1):
                # Sections of their own would stand empty above the charts of trainings.
                names = (f"train/{learnt}_{name}" for name in series)
                log.log_metrics(dict(zip(names, values, strict=True)), step)
        log.describe(report.as_markdown())
        log.set_tags({"verdict": report.status})
        if report.status == "fail" and may_stop:
            raise GateError(in_one_line(report))
        write_json(RESULTS / "verdict.json", {"proceed": True})
        run.confirm_inputs()


def try_one_step(factory: "Callable[[], TrainingSetup]") -> None:
    """A step as it comes: a wrong param, memory that does not do and an operation that is not
    deterministic are told here, in one line. Other errors are the battery's to explain."""
    from src.model.device import NO_MEMORY, NOT_DETERMINISTIC

    try:
        setup = factory()
        assert setup.train_loader is not None
        assert setup.train_step is not None
        setup.train_step(setup, next(iter(setup.train_loader)))
    except InputError:
        raise
    except Exception as error:
        text = str(error)
        if isinstance(error, RuntimeError) and (
            NO_MEMORY.search(text) or NOT_DETERMINISTIC.search(text)
        ):
            raise


def judge_preprocessing(differences: list[str]) -> "Check":
    """Whether the pictures are prepared as those that the weights were trained on."""
    from src.checks.report import Check

    if not differences:
        text = "pictures are prepared as the weights expect, or there are none"
        return Check("preprocessing", "pass", 0.0, 0.0, text)
    text = f"the weights were trained with {', '.join(differences)}"
    causes = ["preprocessing_differs_from_pretrained"]
    return Check("preprocessing", "warn", float(len(differences)), 0.0, text, causes)


def in_one_line(report: "Report") -> str:
    """Why train does not start: the root cause, and how many findings follow."""
    worst = report.root_cause
    assert worst is not None
    return (
        f"overfit-check: {worst.id} failed: {worst.message}; likely "
        f"{', '.join(worst.likely_causes) or 'unknown'}. train does not start "
        "(overfit_check.on_fail=report starts it all the same)"
    )


if __name__ == "__main__":
    stage.run("overfit-check", main)
