"""Stage `overfit-check`: can this set-up be trusted to learn? `train` starts only if it can.

Hands the training, made of the functions that `train` runs, to the battery of src/checks. Writes
the report, the verdict, the curves of what was learnt by heart, and the batch as it enters the net.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.plumbing.errors import GateError, InputError
from src.plumbing.stage import Stage, run_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from src.checks import TrainingSetup
    from src.checks.report import Check, Report
    from src.training.loop import Training

DATA, RESULTS = "data/subset", Path("results/overfit_check")


def main(stage: Stage) -> None:
    from dataclasses import replace

    from src.base.eager import defer_compiler

    defer_compiler()

    from src import checks
    from src.base.files import write_json
    from src.checks.battery import BATTERY
    from src.data.packed import PackedSplit
    from src.model.device import prepare_device, readable_errors
    from src.model.nets.pretrained import disagreements
    from src.plumbing import deps
    from src.plumbing.terminal import Checks
    from src.tracking import run as tracking
    from src.training import own_metrics
    from src.training.for_checks import fresh_training, training_setup

    deps.require_declared(Path("dvc.yaml").read_text(encoding="utf-8"))
    params = stage.params
    waivers = parse_waivers(params["overfit_check.waive"])
    device = prepare_device(
        params["machine.device"],
        params["threads"],
        params["deterministic"],
        params["tf32"],
        fill=True,
    )
    train, val = PackedSplit(DATA, "train"), PackedSplit(DATA, "val")
    own_metrics.try_out(val.labels, len(val.meta["classes"]))
    may_stop = params["overfit_check.on_fail"] == "stop"

    def factory() -> "TrainingSetup":
        return training_setup(params, train, val, device)

    with tracking.start(stage) as log:
        log.log_data(DATA, ("train", "val"))
        with readable_errors("overfit-check"):
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
        write_figures(report, fresh_training(params, train, val, device))
        print(f"overfit-check: {report.status}\n{report.as_text()}")
        if report.status != "pass" and (own := own_files(params)):
            print(f"overfit-check: of your own code this training runs {', '.join(own)}")

        # The report goes to MLflow first: a temporary workspace takes its files with it.
        for name in ("report.json", "curves.png", "batch.png"):
            log.log_artifact(RESULTS / name, "overfit_check")
        log.log_curves(report.curves, "train")
        log.describe(report.as_markdown())
        log.set_tags({"verdict": report.status})
        if report.status == "fail" and may_stop:
            raise GateError(failure_line(report))
        write_json(RESULTS / "verdict.json", {"proceed": True})
        stage.confirm_inputs()


def write_figures(report: "Report", training: "Training") -> None:
    """The curves of what was learnt by heart, and the batch as it enters the net."""
    from src.base.files import write_bytes
    from src.base.plots import curves
    from src.reports.batch import batch_grid

    panels = report.curves or {"overfit_batch": {"loss": [], "accuracy": []}}
    write_bytes(RESULTS / "curves.png", curves(panels, "step (batch), epoch (subset)"))
    write_bytes(RESULTS / "batch.png", batch_grid(training))


def parse_waivers(text: str) -> dict[str, str]:
    """{check id: reason} of `none` or `id: reason; id: reason`; InputError for an id that no check
    has, or one without a reason."""
    from src.checks.catalogue import CHECKS
    from src.plumbing.params import did_you_mean

    if text == "none":
        return {}
    found: dict[str, str] = {}
    for entry in text.split(";"):
        id, _, reason = (part.strip() for part in entry.partition(":"))
        if id not in CHECKS:
            raise InputError(
                f"params.yaml: overfit_check.waive names no check '{id}'"
                f"{did_you_mean(id, CHECKS)}; docs/reference/checks.md lists them"
            )
        if not reason:
            raise InputError(
                f"params.yaml: overfit_check.waive needs a reason for {id}, as '{id}: why'"
            )
        found[id] = reason
    return found


def try_one_step(factory: "Callable[[], TrainingSetup]") -> None:
    """A step as it comes: a wrong param, memory that does not do, an operation that is not
    deterministic and an error in src/yours are reported here, in one line. Other errors are the
    battery's to explain."""
    from src.model.device import NO_MEMORY, NOT_DETERMINISTIC
    from src.plumbing import own_code

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
        if own_code.place_of(error):
            raise


def own_files(params: "Mapping[str, Any]") -> list[str]:
    """The files of src/yours that these params use in training."""
    used = {
        "net": params["model"] == "own",
        "loss": params["loss"] == "own",
        "augment": params["augment_own"],
    }
    return [f"src/yours/{name}.py" for name, is_used in used.items() if is_used]


def judge_preprocessing(differences: list[str]) -> "Check":
    """Whether the samples are prepared as those that the weights were trained on."""
    from src.checks.report import Check

    if not differences:
        text = "images are prepared as the weights expect, or there are none"
        return Check("preprocessing", "pass", 0.0, 0.0, text)
    text = f"the weights were trained with {', '.join(differences)}"
    causes = ["preprocessing_differs_from_pretrained"]
    return Check("preprocessing", "warn", float(len(differences)), 0.0, text, causes)


def failure_line(report: "Report") -> str:
    """Why train does not start: the root cause, and how many findings follow."""
    worst = report.root_cause
    assert worst is not None
    return (
        f"overfit-check: {worst.id} failed: {worst.message}; likely "
        f"{', '.join(worst.likely_causes) or 'unknown'}. train does not start "
        "(overfit_check.on_fail=report starts it all the same)"
    )


if __name__ == "__main__":
    run_stage("overfit-check", main)
