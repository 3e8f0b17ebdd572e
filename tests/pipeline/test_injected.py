"""Faults planted one at a time in the project's code stop the pipeline, with the right cause."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from tests.conftest import SMALL, copy_project, set_params
from tests.pipeline.clone import run
from tests.pipeline.stages import run_stage
from tests.sharing import once_for_all


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in src/; one of `causes` is named. `again`: stages to run before."""

    file: str
    old: str
    new: str
    causes: tuple[str, ...]
    again: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)


CE = "functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)"
STEP = "training/step.py"
UPDATE = "learner.scaler.step(learner.optimizer)"
FAULTS = {
    "model_softmax": Fault(
        "model/create.py", "return model.train()",
        "model.register_forward_hook(lambda m, i, o: o.softmax(1))\n    return model.train()",
        ("activation_before_loss",)),
    "model_frozen": Fault(
        "model/create.py", "return model.train()",
        "next(model.parameters()).requires_grad_(False)\n    return model.train()",
        ("parameter_frozen",)),
    "model_mixes_samples": Fault(
        "model/create.py", "return model.train()",
        "model.register_forward_hook(lambda m, i, o: o - o.mean(0))\n    return model.train()",
        ("samples_mixed",)),
    "loss_softmax": Fault(
        "training/loss.py", CE, CE.replace("(logits,", "(logits.softmax(1),"),
        ("activation_before_loss",)),
    "loss_sum": Fault(
        "training/loss.py", CE, CE.replace(")", ', reduction="sum")'), ("loss_reduction_sum",)),
    "loss_sign": Fault("training/loss.py", CE, f"-{CE}", ("loss_sign",)),
    "loss_labels_rolled": Fault(
        "training/loss.py", CE, CE.replace("targets,", "(targets + 1) % logits.shape[1],"),
        ("loss_label_shifted",)),
    "step_no_zero_grad": Fault(
        STEP, "parameter.grad = None", "pass", ("zero_grad_missing",)),
    "step_cleared_gradients": Fault(
        STEP, UPDATE, f"learner.optimizer.zero_grad(set_to_none=False)\n    {UPDATE}",
        ("zero_grad_before_step",)),
    "step_never": Fault(
        STEP, UPDATE, "pass", ("optimizer_never_steps",)),
    "step_in_eval_mode": Fault(
        STEP, "if not learner.model.training:\n        learner.train_mode()",
        "learner.model.eval()", ("model_in_eval_mode",)),
    "step_parts_not_weighted": Fault(
        STEP, "loss * (len(inputs) / len(rows))", "loss",
        ("gradient_not_divided_by_accumulate",), params={"accumulate": 2}),
    "step_shifts_labels": Fault(
        STEP, "rows, targets = batch", "rows, targets = batch[0], batch[1].roll(1)",
        ("targets_changed_in_step",)),
    "optimizer_of_the_head": Fault(
        "training/optimizer.py", "            model,\n            opt=name",
        "            model.get_classifier(),\n            opt=name",
        ("parameter_not_in_optimizer",)),
    "step_labels_of_others": Fault(
        STEP, "augment(rows, learner.seed, step), labels,",
        "augment(rows, learner.seed, step), labels.flip(0),",
        ("loader_misaligned",)),
    "validation_wrong": Fault(
        "training/validation.py", '"accuracy": correct / count', '"accuracy": 1 - correct / count',
        ("eval_metric_wrong",)),
    "inference_in_training_mode": Fault(
        "model/inference.py", "    model.eval()\n    part = kind_part",
        "    model.train()\n    part = kind_part", ("eval_in_train_mode",)),
    "checkpoint_without_optimizer": Fault(
        "training/loop.py", 'for part in ("model", "optimizer", ', 'for part in ("model", ',
        ("optimizer_not_saved",)),
    "augmentation_blank": Fault(
        "images/augment.py", "count, height, width, _ = images.shape\n        if self.scale",
        "count, height, width, _ = images.shape\n        images = images * 0\n"
        "        if self.scale", ("blank_images", "augmentation_destroys_label")),
    "input_not_centred": Fault(
        "images/input.py", "torch.mul(images, scale, out=inputs).sub_(shift)",
        "torch.mul(images, scale, out=inputs)",
        ("input_not_normalised", "normalised_with_other_statistics")),
    "packing_blank": Fault(
        "data/writer.py", "row.tobytes()", "bytes(row.nbytes)",
        ("blank_images", "duplicates", "input_not_normalised"), ("prepare", "subset")),
    "packing_statistics": Fault(
        "images/quality.py", '"mean": [m / 255 for m in mean]', '"mean": [m for m in mean]',
        ("input_not_normalised", "normalised_with_other_statistics"), ("prepare", "subset")),
    "subset_of_one_sample": Fault(
        "subset.py", "full.rows([index])[0]", "full.rows([0])[0]", ("duplicates",), ("subset",)),
}  # fmt: skip
THROUGH_DVC = ("loss_softmax", "augmentation_blank")
VERDICT = "results/overfit_check/verdict.json"


def plant(project: Path, fault: Fault) -> None:
    path = project / "src" / fault.file
    text = path.read_text()
    assert text.count(fault.old) == 1, fault.old
    path.write_text(text.replace(fault.old, fault.new))
    if fault.params:
        set_params(project, **fault.params)


@pytest.fixture
def prepared(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A project whose data are ready, in which the check passes."""
    with once_for_all("injected", tmp_path_factory) as shared:
        folder = shared / "project"
        if not (folder / VERDICT).exists():
            set_params(copy_project(folder), **SMALL)
            for stage in ("prepare", "subset", "overfit-check"):
                assert run_stage(folder, stage).code == 0
    return Path(shutil.copytree(folder, tmp_path / "project"))


@pytest.mark.parametrize("name", FAULTS)
def test_the_place_of_a_fault_is_there(name: str) -> None:
    fault = FAULTS[name]
    assert (ROOT / "src" / fault.file).read_text().count(fault.old) == 1


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize("name", FAULTS)
def test_the_check_stops_and_names_the_cause(name: str, prepared: Path) -> None:
    fault = FAULTS[name]
    plant(prepared, fault)
    for stage in fault.again:
        assert run_stage(prepared, stage).code == 0
    (prepared / VERDICT).unlink()
    ended = run_stage(prepared, "overfit-check")
    assert "Traceback" not in ended.printed, ended.printed
    assert ended.code == 1, ended.printed
    assert "train does not start" in ended.printed
    named = ended.printed.partition("likely ")[2].partition(". train does")[0].split(", ")
    assert set(named[:2]) & set(fault.causes), ended.printed
    assert not (prepared / VERDICT).exists()


@pytest.mark.slow(seconds=20)
def test_dvc_repro_stops_before_train(clone: Path) -> None:
    set_params(clone, tracking="false")
    for name in THROUGH_DVC:
        plant(clone, FAULTS[name])
        printed = run(clone, "dvc", "repro", code=255)
        assert "Running stage 'overfit-check'" in printed
        assert "Running stage 'train'" not in printed
        assert "train does not start" in printed
        assert any(cause in printed for cause in FAULTS[name].causes)
        run(clone, "git", "checkout", "--quiet", "src")
    printed = run(clone, "dvc", "exp", "run", "-S", "optimizer=sgd", "-S", "lr=50", code=255)
    assert "Running stage 'train'" not in printed
    assert "lr_too_high" in printed
