"""Pretrained weights in a whole run: a net that starts or normalises wrongly is only worse."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from src import predict
from src.data.packed import PackedSplit
from src.model.create import create_model
from src.model.nets.pretrained import disagreements
from src.model.nets.weights_file import write_weights
from src.overfit_check import judge_preprocessing
from src.plumbing import params
from src.training.learner import Learner, build_learner
from tests.conftest import SMALL, STAGES, copy_project, run_main, run_stage, set_params, working_in
from tests.model.test_predict import compare_with_evaluate
from tests.model.test_weights import donor
from tests.preparation.image_folders import write_images

# Nothing of it is what prepare would choose, or find in the images of this project.
EXPECTED = {
    "architecture": "test_resnet",
    "input_size": [3, 16, 16],
    "mean": [0.2, 0.45, 0.7],
    "std": [0.15, 0.3, 0.6],
    "interpolation": "bicubic",
    "crop_ratio": 0.75,
}
WEIGHTS = "data/weights/file.safetensors"
EPOCHS = 2


def in_file() -> dict[str, torch.Tensor]:
    """With norms and their statistics unlike those with which a net begins."""
    return {name: value + 0.1 if value.ndim == 1 else value for name, value in donor().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished project from a weights file, and its images; the backbone rests. Read only."""
    folder = tmp_path_factory.mktemp("pretrained")
    images, project = folder / "images", copy_project(folder / "project")
    write_images(images, {"cat": 40, "dog": 40, "owl": 40})
    write_weights(project / WEIGHTS, in_file(), EXPECTED)
    values = {
        "source": "folder",
        "path": images,
        "weights": WEIGHTS,
        "epochs": EPOCHS,
        "freeze_epochs": EPOCHS,
        "lr": 0.01,
        "interpolation": "bilinear",
        "crop_ratio": 0.9,
        "on_fail": "report",
    }
    set_params(project, **{**SMALL, **values})
    for name in STAGES:
        run_stage(project, name)
    return project, images


def description(project: Path) -> dict[str, Any]:
    return json.loads((project / "models/model.json").read_text())


def learner_of(project: Path) -> Learner:
    with working_in(project):
        data = PackedSplit("data/prepared", "train")
        return build_learner(params.load(), data, torch.device("cpu"), steps=1)


def test_the_numbers_of_the_file_reach_training_and_model(trained: tuple[Path, Path]) -> None:
    project, _ = trained
    learner, about = learner_of(project), description(project)
    for name in ("mean", "std"):
        assert getattr(learner, name) == about[name] == EXPECTED[name]
        assert PackedSplit(project / "data/prepared", "train").meta[name] != EXPECTED[name]
    # How images were packed is for prepare to say, not for the file.
    assert (about["interpolation"], about["crop_ratio"]) == ("bilinear", 0.9)


def test_the_backbone_is_that_of_the_file_and_the_head_is_new(trained: tuple[Path, Path]) -> None:
    project, _ = trained
    start, end = (
        learner_of(project).model.state_dict(),
        load_file(project / "models/model.safetensors"),
    )
    head = ["fc.weight", "fc.bias"]
    for name, value in in_file().items():
        if name not in head:
            assert torch.equal(start[name], value), name
            assert torch.equal(end[name], value), name
    drawn = create_model("test_resnet", 3, (3, 16, 16)).state_dict()
    assert torch.equal(start["fc.weight"], drawn["fc.weight"])
    assert start["fc.weight"].shape == (3, in_file()["fc.weight"].shape[1])
    assert not torch.equal(end["fc.weight"], start["fc.weight"])


def test_training_and_evaluation_normalise_alike(trained: tuple[Path, Path]) -> None:
    project, _ = trained
    with open(project / "results/train/history.csv", newline="") as file:
        best = list(csv.DictReader(file))[description(project)["best_epoch"] - 1]
    val = json.loads((project / "results/evaluate/metrics.json").read_text())["val"]
    assert float(best["val_loss"]) == pytest.approx(val["log_loss"], rel=1e-5)
    assert float(best["val_accuracy"]) == pytest.approx(val["accuracy"], rel=1e-5)


def test_predictions_are_those_of_evaluate(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, images = trained
    given = [images, "--json", "--model", project / "models", "--device", "cpu"]
    code, printed, _ = run_main(predict.main, given, monkeypatch, capsys)
    assert code == 0
    lines = [json.loads(line) for line in printed.splitlines()]
    assert len(lines) == 120
    compare_with_evaluate(project, images, lines, rel=1e-5)


def test_the_check_warns_of_other_preprocessing(trained: tuple[Path, Path]) -> None:
    project, _ = trained
    report = json.loads((project / "results/overfit_check/report.json").read_text())
    [finding] = [check for check in report["checks"] if check["id"] == "preprocessing"]
    assert finding["status"] == "warn"
    assert finding["likely_causes"] == ["preprocessing_differs_from_pretrained"]
    assert finding["message"] == (
        "the weights were trained with prepare.interpolation=bicubic (now bilinear), "
        "prepare.crop_ratio=0.75 (now 0.9)"
    )


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "pass"),
        ({"interpolation": "bilinear"}, "warn"),
        ({"crop_ratio": 1}, "warn"),
        ({"size": 24}, "warn"),
    ],
)
def test_the_warning_goes_with_what_it_names(
    project: Path, values: dict[str, Any], status: str
) -> None:
    write_weights(project / WEIGHTS, in_file(), EXPECTED)
    set_params(project, **{"interpolation": "bicubic", "crop_ratio": 0.75, **values})
    run_stage(project, "prepare")
    meta = PackedSplit(project / "data/prepared", "train").meta
    differences = disagreements(str(project / WEIGHTS), "test_resnet", meta)
    assert judge_preprocessing(differences).status == status
    assert [line.partition("=")[0] for line in differences] == [f"prepare.{key}" for key in values]
