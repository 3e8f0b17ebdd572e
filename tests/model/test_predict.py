"""Predictions for new images are those of evaluation, from the model files alone."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from src import predict
from src.data.packed import PackedSplit
from src.images.packing import FILES
from src.model.prediction import predict_rows, read_sample
from src.model.saved import load_model
from src.plumbing import identity
from src.plumbing.hashes import md5_of
from src.preparation.sources.folder import named_files
from tests.conftest import SMALL, copy_project, run_main, run_unchecked, set_params
from tests.preparation.image_folders import write_images

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A project that has learnt and evaluated a folder of images, and that folder. Read only."""
    folder = tmp_path_factory.mktemp("predict")
    images, project = folder / "images", copy_project(folder / "project")
    write_images(images, {"cat": 30, "dog": 30})
    turned = Image.open(images / "cat/000.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned.save(images / "cat/000.jpg", exif=exif)
    transparent = Image.open(images / "dog/000.png").convert("RGBA")
    transparent.putalpha(100)
    transparent.save(images / "dog/zzz.webp")
    values = {
        "source": "folder",
        "path": images,
        "interpolation": "bicubic",
        "crop_ratio": 0.75,
        "loss": "bce",
        "epochs": 2,
    }
    set_params(project, **{**SMALL, **values})
    run_unchecked(project)
    return project, images


@pytest.fixture
def alone(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    """A folder with the code and the two model files: no params.yaml, no data."""
    shutil.copytree(trained[0] / "models", tmp_path / "alone/models")
    shutil.copytree(trained[0] / "src", tmp_path / "alone/src")
    return tmp_path / "alone"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """`python -m src.predict` in a folder, in this process: (exit code, stdout, stderr)."""

    def run(folder: Path, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        return run_main(predict.main, arguments, monkeypatch, capsys)

    return run


def compare_with_evaluate(
    project: Path, images: Path, lines: list[dict[str, Any]], rel: float
) -> None:
    """Answers are those of evaluate; other batch sizes round otherwise in the last digits."""
    predicted = {line["path"]: line for line in lines}
    with open(project / "results/evaluate/predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        split = PackedSplit(project / "data/prepared", row["split"])
        line = predicted[str(images / split.paths[int(row["index"])])]
        assert line["class"] == row["prediction"]
        for name, value in line["probabilities"].items():
            assert value == pytest.approx(float(row[f"probability {name}"]), rel=rel)


@pytest.mark.slow(seconds=8)
def test_predictions_are_those_of_evaluate(trained: tuple[Path, Path], alone: Path) -> None:
    project, images = trained
    options = ["--json", "--batch", "7", "--device", "cpu"]
    command = [sys.executable, "-m", "src.predict", str(images), *options]
    ended = subprocess.run(command, cwd=alone, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(lines) == 62
    assert all(list(line["probabilities"]) == ["cat", "dog"] for line in lines)
    compare_with_evaluate(project, images, lines, rel=2e-6)


def test_images_enter_as_they_were_packed(trained: tuple[Path, Path]) -> None:
    project, images = trained
    _, description = load_model(project / "models")
    seen = set()
    for split in ("train", "val", "test"):
        packed = PackedSplit(project / "data/prepared", split)
        for index, path in enumerate(packed.paths):
            again = read_sample(images / path, description, path)
            assert again.dtype == np.uint8
            assert np.array_equal(again, packed.rows([index])[0]), path
            seen.add(path)
    assert {"cat/000.jpg", "dog/zzz.webp"} <= seen


def test_images_in_memory(trained: tuple[Path, Path]) -> None:
    """As a served model gets them: of Pillow or the bytes of files, in batches or at once."""
    project, images = trained
    model, description = load_model(project / "models")
    files, _ = named_files([images], FILES)
    rows = [read_sample(Image.open(path), description, "an image") for path in files]
    expected = predict_rows(model, description, rows)
    assert expected.shape == (62, 2)
    assert np.allclose(expected.sum(axis=1), 1)
    contents = [read_sample(path.read_bytes(), description, "an image") for path in files]
    assert np.allclose(predict_rows(model, description, contents, batch=5), expected, atol=1e-6)
    assert predict_rows(model, description, []).shape == (0, 2)
    # Without an activation it is softmax, and not the sigmoids of this model.
    plain = {key: value for key, value in description.items() if key != "activation"}
    odds = np.log(expected[:, 0] / expected[:, 1])
    others = predict_rows(model, plain, rows)
    assert not np.allclose(np.log(others[:, 0] / others[:, 1]), odds, atol=1e-3)


def test_what_cannot_be_read_is_said_and_the_rest_predicted(
    trained: tuple[Path, Path], alone: Path, tmp_path: Path, tool: Tool
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(trained[1] / "cat", folder)
    content = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(content[: len(content) // 2])
    os.mkfifo(folder / "pipe")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").symlink_to("nothing")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/002.png").write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked.png").write_bytes(content)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")  # nothing is versioned here
    (folder / "above").symlink_to(folder)
    code, out, err = tool(
        alone, folder, folder / "pipe", folder / "nowhere.png", "--top", 1, "--batch", 4
    )
    assert code == 1
    errors = err.splitlines()
    assert len(errors) == 6, err
    assert (
        f"{folder}/nowhere.png cannot be used: it does not exist: name files, or a folder" in errors
    )
    assert any("001.png cannot be used: it is cut short or damaged" in line for line in errors)
    assert any("pipe cannot be used: it is no file" in line for line in errors)
    assert any("broken.jpg cannot be used: it is a link that leads now" in line for line in errors)
    assert any("above cannot be used: it is a link to a folder above" in line for line in errors)
    assert errors[-1] == "predict: 5 of 36 files could not be read"
    table = out.splitlines()
    assert table[0].split() == ["file", "class", "prob."]
    assert len(table) == 1 + 31
    assert "linked/linked.png" in out
    assert all(len(line.split()) == 3 for line in table)


def test_a_name_moves_no_cursor(
    trained: tuple[Path, Path], alone: Path, tmp_path: Path, tool: Tool
) -> None:
    good, bad = tmp_path / "two\nlines\x1b[2J.png", tmp_path / "bell\a.png"
    shutil.copy(next(trained[1].rglob("*.png")), good)
    bad.touch()
    code, out, err = tool(alone, good, bad)
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "two\\nlines\\x1b[2J.png" in out
    assert "bell\\x07.png cannot be used" in err
    assert out.replace("\n", "").isprintable()
    no_utf8 = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(good, no_utf8)
    for path in (good, no_utf8):
        _, out, _ = tool(alone, path, "--json")
        assert out.isascii()
        assert json.loads(out)["path"] == str(path)


@pytest.mark.parametrize("key", ["fit", "mean", "activation", "architecture"])
def test_a_damaged_description_ends_with_2(
    trained: tuple[Path, Path], tmp_path: Path, key: str, tool: Tool
) -> None:
    folder = Path(shutil.copytree(trained[0] / "models", tmp_path / "models"))
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, key: "x"}))
    code, out, err = tool(tmp_path, trained[1] / "cat/001.png", "--model", folder)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"{folder}/model.json: {key} must be ")


def test_a_model_that_its_lock_did_not_make_is_named(alone: Path, tool: Tool) -> None:
    """As after `dvc commit`; without a dvc.lock, or with that of another model, nothing is said."""
    Image.new("RGB", (16, 16)).save(image := alone / "image.png")
    train: dict[str, Any] = {"cmd": "", "deps": [], "params": {}}
    for md5, line in ((md5_of(alone / identity.MODEL), True), ("0" * 32, False)):
        train["outs"] = [{"path": identity.MODEL, "md5": md5}]
        (alone / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": train}}))
        code, printed, said = tool(alone, image)
        assert (code, printed.count("\n")) == (0, 2)
        assert (
            said.startswith("the model in models was not made from these inputs: models/model.json")
            == line
        )
    (alone / "dvc.lock").unlink()
    assert tool(alone, image)[2] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty"], "there is nothing to classify in empty"),
        (["nowhere.png"], "nowhere.png cannot be used: it does not exist"),
        (["image.png", "--model", "empty"], "empty holds no model"),
        (["image.png", "--device", "tpu"], "must be one of auto, cpu"),
        (["image.png", "--batch", "0"], "must be an integer >= 1, got '0'"),
    ],
)
def test_wrong_arguments_end_with_2(
    alone: Path, arguments: list[str], words: str, tool: Tool
) -> None:
    (alone / "empty").mkdir()
    Image.new("RGB", (9, 9)).save(alone / "image.png")
    code, _, err = tool(alone, *arguments)
    assert code == 2
    assert words in err


def test_an_empty_path_is_not_this_folder(alone: Path, tool: Tool) -> None:
    code, out, err = tool(alone, "")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("a path is empty: name a file, or a folder")


@pytest.fixture
def grey_model(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    """The model folder of a net of one channel."""
    project = Path(shutil.copytree(trained[0], tmp_path / "grey"))
    shutil.rmtree(project / "results")
    set_params(project, channels=1, epochs=1)
    run_unchecked(project)
    return project / "models"


def test_a_grey_net_says_that_it_sees_no_colour(
    trained: tuple[Path, Path], grey_model: Path, tmp_path: Path, tool: Tool
) -> None:
    """The example, a photo; its relatives, a palette and what is asked for as JSON."""
    colour = next((trained[1] / "dog").glob("*.png"))
    palette, grey = tmp_path / "palette.gif", tmp_path / "grey.jpg"
    Image.open(colour).convert("RGB").quantize(16).save(palette)
    Image.open(colour).convert("L").convert("RGB").save(grey)
    line = "in colour, which this model, made with prepare.channels=1, sees as grey"
    for options in ([], ["--json"]):
        code, out, err = tool(tmp_path, colour, palette, grey, "--model", grey_model, *options)
        assert code == 0
        assert err.splitlines() == [f"predict: {line}: 2 of 3 files"]
        assert len(out.splitlines()) == 3 + (not options)
    assert tool(tmp_path, grey, "--model", grey_model)[2] == ""
    assert tool(tmp_path, colour, "--model", trained[0] / "models")[2] == ""
