"""The stage `evaluate` on a net with random weights: its options against counts by hand."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src import evaluate
from src.base.files import write_json
from src.data.batches import EVAL_BATCH
from src.data.packed import PackedSplit
from src.images.input import enter
from src.model.create import create_model
from src.model.inference import logits_of, normalised_sigmoid, refresh_batchnorm, softmax
from src.model.saved import load_model, save_model
from src.plumbing.errors import InputError
from src.reports.evaluation import summary
from src.tracking.store import store
from tests.conftest import SMALL, copy_project, run_stage, set_params, working_in
from tests.tracking.tracked_project import VARIABLES, history, runs

CPU = torch.device("cpu")
PLAIN = {"machine.workers": 0, "machine.reading": "auto", "evaluate.flip": False}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with packed images and a net with random weights as its model."""
    folder = copy_project(tmp_path_factory.mktemp("evaluate") / "project")
    set_params(folder, **SMALL)
    run_stage(folder, "prepare")
    meta = PackedSplit(folder / "data/prepared", "val").meta
    net = create_model("test_resnet", classes=3, input_size=(3, 16, 16))
    description = {
        "architecture": "test_resnet",
        "classes": meta["classes"],
        "input_size": [3, 16, 16],
        "mean": meta["mean"],
        "std": meta["std"],
        "fit": "crop",
        "interpolation": "bilinear",
        "epochs": 3,
        "best_epoch": 2,
        "fingerprint": "f" * 64,
    }
    save_model(net.state_dict(), description, folder / "models")
    return folder


@pytest.fixture
def evaluable(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "evaluable"))


def describe(project: Path, **values: Any) -> None:
    path = project / "models/model.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def probabilities_of(project: Path, split: str) -> np.ndarray:
    """What `evaluate` writes into predictions.csv, N x K."""
    lines = (project / "results/evaluate/predictions.csv").read_text().splitlines()[1:]
    return np.array([line.split(",")[4:] for line in lines if line.startswith(split)], dtype=float)


def expected_logits(project: Path, split: str, refresh: str = "", flip: bool = False) -> np.ndarray:
    model, about = load_model(project / "models")
    data = PackedSplit(project / "data/prepared", split)
    if refresh:
        images = PackedSplit(project / "data/prepared", refresh)
        refresh_batchnorm(model, images, CPU, about["mean"], about["std"])
    parts = logits_of(model, data, CPU, about["mean"], about["std"], flip=flip)
    return torch.cat([logits for logits, _ in parts]).numpy()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("refresh", "images"),
    [
        ("none", {"val": "", "test": ""}),
        ("train", {"val": "train", "test": "train"}),
        ("test", {"val": "val", "test": "test"}),
    ],
)
def test_params_choose_the_options(
    evaluable: Path, flip: bool, refresh: str, images: dict[str, str]
) -> None:
    set_params(evaluable, refresh_batchnorm=refresh, flip=str(flip).lower())
    before = (evaluable / "models/model.safetensors").read_bytes()
    run_stage(evaluable, "evaluate")
    for split, source in images.items():
        expected = softmax(expected_logits(evaluable, split, source, flip))
        assert np.allclose(probabilities_of(evaluable, split), expected, rtol=1e-5, atol=0)
    assert (evaluable / "models/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, None),
        ({"flip": "true"}, "flip"),
        ({"refresh_batchnorm": "train"}, "refreshed BatchNorm statistics (train)"),
        (
            {"flip": "true", "refresh_batchnorm": "test"},
            "flip and refreshed BatchNorm statistics (test)",
        ),
    ],
)
def test_a_remark_says_where_predict_differs(
    evaluable: Path, options: dict[str, str], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(evaluable, **options)
    run_stage(evaluable, "evaluate")
    said = [line for line in capsys.readouterr().out.splitlines() if "these figures" in line]
    assert said == (
        [
            f"evaluate: these figures are with {words}: `python -m src.predict` and the served "
            "model predict without"
        ]
        if words
        else []
    )


def test_without_options_the_outputs_are_those_of_the_net_bit_by_bit(evaluable: Path) -> None:
    with working_in(evaluable):
        model, about = load_model()
        data = PackedSplit("data/prepared", "val")
        params = {**PLAIN, "evaluate.refresh_batchnorm": "none"}
        found = evaluate.predict(model, about, data, None, params, CPU)
        images = torch.from_numpy(data.rows(range(len(data))))
        with torch.no_grad():
            logits = model(enter(images, about["mean"], about["std"]))
    assert len(data) <= EVAL_BATCH
    assert np.array_equal(found, softmax(logits.numpy()))


def test_a_refreshed_net_does_not_reach_the_next_split(evaluable: Path) -> None:
    with working_in(evaluable):
        model, about = load_model()
        before = copy.deepcopy(model.state_dict())
        data = PackedSplit("data/prepared", "val")
        params = {**PLAIN, "evaluate.refresh_batchnorm": "test"}
        evaluate.predict(model, about, data, None, params, CPU)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_activation_sigmoid_gives_normalised_sigmoids(evaluable: Path) -> None:
    describe(evaluable, activation="sigmoid")
    run_stage(evaluable, "evaluate")
    expected = normalised_sigmoid(expected_logits(evaluable, "test"))
    assert np.allclose(probabilities_of(evaluable, "test"), expected, rtol=1e-5)
    assert not np.allclose(expected, softmax(expected_logits(evaluable, "test")), rtol=1e-3)


def test_an_unknown_activation_is_named(evaluable: Path) -> None:
    describe(evaluable, activation="tanh")
    with pytest.raises(InputError, match='activation must be one of softmax, sigmoid, got "tanh"'):
        run_stage(evaluable, "evaluate")


@pytest.mark.parametrize("key", ["epochs", "best_epoch", "fingerprint"])
def test_what_evaluate_alone_needs_is_named(evaluable: Path, key: str) -> None:
    describe(evaluable, **{key: None})
    with pytest.raises(InputError, match=f"models/model.json: {key} must be"):
        run_stage(evaluable, "evaluate")
    path = evaluable / "models/model.json"
    about = json.loads(path.read_text())
    del about[key]
    write_json(path, about)
    load_model(evaluable / "models")  # prediction does without
    with pytest.raises(InputError, match=f"models/model.json: {key} is missing: run `dvc repro tr"):
        run_stage(evaluable, "evaluate")


def test_outputs_are_the_same_bytes_again(evaluable: Path) -> None:
    def contents() -> dict[str, bytes]:
        run_stage(evaluable, "evaluate")
        return {path.name: path.read_bytes() for path in (evaluable / "results/evaluate").iterdir()}

    first = contents()
    assert "reliability.png" in first
    set_params(evaluable, workers=1, reading="workers")
    assert contents() == first


@pytest.fixture
def tracked(evaluable: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`evaluable` with a store of its own, as working directory."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    set_params(evaluable, tracking="true")
    monkeypatch.chdir(evaluable)
    return evaluable


def test_what_invites_choices_is_of_val(
    evaluable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = []

    def draw(matrix: np.ndarray, classes: list[str], title: str) -> bytes:
        titles.append((title, int(matrix.sum())))
        return b""

    monkeypatch.setattr("src.reports.evaluation.confusion_matrix", draw)
    run_stage(evaluable, "evaluate")
    metrics = json.loads((evaluable / "results/evaluate/metrics.json").read_text())
    count = metrics["val"]["n"]
    assert count != metrics["test"]["n"]
    assert titles == [(f"val: {count} images", count)]
    table = (evaluable / "results/evaluate/per_class.csv").read_text().splitlines()[1:]
    assert sum(int(line.split(",")[1]) for line in table) == count
    assert list(metrics) == ["val", "test"]
    printed = [line for line in capsys.readouterr().out.splitlines() if " accuracy " in line]
    assert [line.split()[1] for line in printed] == ["val", "test"]


def add_groups(project: Path, split: str, group: Callable[[int], str]) -> None:
    """What `prepare` writes for a source that knows groups."""
    path = project / f"data/prepared/{split}.csv"
    header, *rows = path.read_text().splitlines()
    rows = [f"{row},{group(number)}" for number, row in enumerate(rows)]
    path.write_text("\n".join([f"{header},group", *rows]) + "\n")


def test_groups_are_resampled_and_that_is_said(
    evaluable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(evaluable, "evaluate")
    plain = json.loads((evaluable / "results/evaluate/metrics.json").read_text())
    capsys.readouterr()
    add_groups(evaluable, "val", lambda number: f"P{number % 7}")
    add_groups(evaluable, "test", lambda _: "one")
    run_stage(evaluable, "evaluate")
    found = json.loads((evaluable / "results/evaluate/metrics.json").read_text())
    assert found["val"]["groups"] == 7
    assert list(found["val"])[:2] == ["n", "groups"]
    assert found["val"]["accuracy"] == plain["val"]["accuracy"]
    for end in ("accuracy_low", "macro_f1_high", "log_loss_low", "top_2_low"):
        assert found["val"].get(end) != plain["val"].get(end) or end not in plain["val"]
    assert found["test"] == plain["test"]
    printed = capsys.readouterr().out
    assert ", over 7 groups)" in printed
    assert "evaluate: all of test is one group: its intervals are over samples" in printed
    header, first, *_ = (evaluable / "results/evaluate/predictions.csv").read_text().splitlines()
    assert header.startswith("split,index,label,prediction,group,probability ")
    assert first.split(",")[4] == "P0"
    assert "resampled are groups, 7 of val" in summary(
        found, {"architecture": "x", "epochs": 1, "best_epoch": 1}
    )


@pytest.mark.slow
def test_numbers_go_to_the_run_of_the_model_and_other_settings_to_a_child(tracked: Path) -> None:
    run_stage(tracked, "evaluate")
    run_stage(tracked, "evaluate")
    [parent] = runs(tracked)
    metrics = json.loads((tracked / "results/evaluate/metrics.json").read_text())
    for split, prefix in (("val", "val"), ("test", "zz_test")):
        for key, value in metrics[split].items():
            if key.endswith(("_low", "_high")):  # in the description
                assert f"{prefix}/{key}" not in parent.data.metrics
                continue
            # After the last of 3 epochs where training draws a curve, else a single number.
            step = 4 if (split, key) in (("val", "accuracy"), ("val", "macro_f1")) else 0
            [(found, logged)] = history(tracked, parent, f"{prefix}/{key}")
            assert (found, logged) == (step, value), key
    note = parent.data.tags["mlflow.note.content"]
    test = metrics["test"]
    for key in ("accuracy", "macro_f1", "log_loss"):
        shown = [f"{test[name]:.4f}" for name in (key, f"{key}_low", f"{key}_high")]
        assert "{} ({} to {})".format(*shown) in note
    assert f"| {test['calibration_error']:.4f} |" in note
    client, _ = store.open_store(tracked)
    listed = [file.path for file in client.list_artifacts(parent.info.run_id, "evaluate")]
    assert "evaluate/reliability.png" in listed

    set_params(tracked, flip="true")
    run_stage(tracked, "evaluate")
    child, again = runs(tracked)
    assert again.info.run_id == parent.info.run_id
    assert again.data.metrics == parent.data.metrics
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    flipped = json.loads((tracked / "results/evaluate/metrics.json").read_text())
    assert flipped["test"]["log_loss"] != metrics["test"]["log_loss"]
    assert child.data.metrics["zz_test/log_loss"] == flipped["test"]["log_loss"]
