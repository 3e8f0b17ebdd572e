"""Faults planted in the project's own functions, one at a time, stop the pipeline before `train`,
with the right cause: the check is made of the code that trains."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL, copy_project, run_stage, set_params
from tests.pipeline.clone import commit, new_clone, run

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in a file of src/; any of `causes` must be named. `again`: stages that
    run before the check; `params` that make the place matter."""

    file: str
    old: str
    new: str
    causes: tuple[str, ...]
    again: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)


CE = "functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)"
STEP = "training/setup.py"
FAULTS = {
    "model_softmax": Fault(
        "training/model.py", "return model.train()",
        "model.register_forward_hook(lambda m, i, o: o.softmax(1))\n    return model.train()",
        ("activation_before_loss",)),
    "model_frozen": Fault(
        "training/model.py", "return model.train()",
        "next(model.parameters()).requires_grad_(False)\n    return model.train()",
        ("parameter_frozen",)),
    "model_mixes_samples": Fault(
        "training/model.py", "return model.train()",
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
        STEP, "setup.optimizer.zero_grad(set_to_none=True)", "pass", ("zero_grad_missing",)),
    "step_cleared_gradients": Fault(
        STEP, "setup.scaler.step(setup.optimizer)",
        "setup.optimizer.zero_grad(set_to_none=False)\n    setup.scaler.step(setup.optimizer)",
        ("zero_grad_before_step",)),
    "step_never": Fault(
        STEP, "setup.scaler.step(setup.optimizer)", "pass", ("optimizer_never_steps",)),
    "step_in_eval_mode": Fault(
        STEP, "if not setup.model.training:\n        setup.train_mode()", "setup.model.eval()",
        ("model_in_eval_mode",)),
    "step_parts_not_weighted": Fault(
        STEP, "loss * (len(part) / len(pictures))", "loss",
        ("gradient_not_divided_by_accumulate",), params={"accumulate": 2}),
    "step_shifts_labels": Fault(
        STEP, "pictures, targets = batch", "pictures, targets = batch[0], batch[1].roll(1)",
        ("targets_changed_in_step",)),
    "optimizer_of_the_head": Fault(
        "training/optimizer.py", "            model,\n            opt=name",
        "            model.get_classifier(),\n            opt=name",
        ("parameter_not_in_optimizer",)),
    "loop_labels_of_others": Fault(
        "training/loop.py", "return mix(augmentation(pictures, setup.seed, step), labels,",
        "return mix(augmentation(pictures, setup.seed, step), labels.flip(0),",
        ("loader_misaligned",)),
    "loop_evaluates_wrongly": Fault(
        "training/validation.py", '"accuracy": correct / count', '"accuracy": 1 - correct / count',
        ("eval_metric_wrong",)),
    "inference_in_training_mode": Fault(
        "training/inference.py", "    model.eval()\n    for pictures, labels in ordered",
        "    model.train()\n    for pictures, labels in ordered", ("eval_in_train_mode",)),
    "checkpoint_without_optimizer": Fault(
        "training/loop.py", 'setup.optimizer.load_state_dict(state["optimizer"])', "pass",
        ("optimizer_not_saved",)),
    "augmentation_blank": Fault(
        "data/augment.py", "count, height, width, _ = pictures.shape\n        if self.scale",
        "count, height, width, _ = pictures.shape\n        pictures = pictures * 0\n"
        "        if self.scale", ("blank_images", "augmentation_destroys_label")),
    "input_not_centred": Fault(
        "data/batches.py", "pictures.float() * scale - shift", "pictures.float() * scale",
        ("input_not_normalised", "normalised_with_other_statistics")),
    "packing_blank": Fault(
        "packing/writer.py", "picture.tobytes()", "bytes(picture.nbytes)",
        ("blank_images", "duplicates", "input_not_normalised"), ("prepare", "subset")),
    "packing_statistics": Fault(
        "packing/writer.py", "return [m / 255 for m in mean]", "return [m for m in mean]",
        ("input_not_normalised", "normalised_with_other_statistics"), ("prepare", "subset")),
    "packing_same_picture": Fault(
        "subset.py", "full.pictures([index])[0]", "full.pictures([0])[0]",
        ("duplicates",), ("subset",)),
}  # fmt: skip
THROUGH_DVC = ("loss_softmax", "step_no_zero_grad", "augmentation_blank")


def plant(project: Path, fault: Fault) -> None:
    path = project / "src" / fault.file
    text = path.read_text()
    assert text.count(fault.old) == 1, fault.old
    path.write_text(text.replace(fault.old, fault.new))
    if fault.params:
        set_params(project, **fault.params)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data are ready, in which the check passes."""
    folder = copy_project(tmp_path_factory.mktemp("injected") / "project")
    set_params(folder, **SMALL)
    for stage in ("prepare", "subset", "overfit-check"):
        run_stage(folder, stage)
    return folder


def python(project: Path, module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"src.{module}"], cwd=project, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_stops_and_names_the_cause(name: str, prepared: Path, tmp_path: Path) -> None:
    import shutil

    fault = FAULTS[name]
    project = Path(shutil.copytree(prepared, tmp_path / "project"))
    plant(project, fault)
    for stage in fault.again:
        assert python(project, stage).returncode == 0
    (project / "results/overfit_check/verdict.json").unlink()
    ended = python(project, "overfit_check")
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "train does not start" in ended.stderr
    named = ended.stderr.partition("likely ")[2].partition(". train does")[0].split(", ")
    assert set(named[:2]) & set(fault.causes), ended.stdout + ended.stderr
    assert not (project / "results/overfit_check/verdict.json").exists()


@pytest.mark.parametrize("name", THROUGH_DVC)
def test_dvc_repro_stops_before_train(name: str, tmp_path: Path) -> None:
    folder = new_clone(tmp_path / "project")
    plant(folder, FAULTS[name])
    commit(folder, "a fault")
    printed = run(folder, "dvc", "repro", code=255)
    assert "Running stage 'overfit-check'" in printed
    assert "Running stage 'train'" not in printed
    assert any(cause in printed for cause in FAULTS[name].causes)
