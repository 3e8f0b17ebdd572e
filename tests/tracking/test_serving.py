import base64
import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.base.imports import ROOT
from src.plumbing import params
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.serving import serving
from src.tracking.store import store
from tests.conftest import SMALL, STAGES, copy_project, free_port, run_stage, set_params, working_in
from tests.tracking.tracked_project import (
    NOWHERE,
    VARIABLES,
    artifacts,
    runs,
    store_at,
    train,
    wait_until_up,
)

LOAD = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model("model")
images = json.load(open("images.json"))
found = model.predict(pandas.DataFrame({"image": images})).to_dict("records")
print(json.dumps({"found": found, "repository": [p for p in sys.path if p == sys.argv[1]]}))
"""


def random_images(count: int) -> list[Image.Image]:
    """Images of several sizes, grey and in colour."""
    draws = np.random.default_rng(0)
    shapes = [(20 + 7 * index, 30, 3) if index % 2 else (24, 24) for index in range(count)]
    return [Image.fromarray(draws.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def as_text(image: Image.Image, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def save_model(
    folder: Path, activation: str, architecture: str = "test_resnet", channels: int = 3
) -> None:
    from src.model import create, saved

    own = params.own_params(params.load(ROOT))
    net = create.create_model(architecture, 3, (channels, 16, 16), own_params=own)
    description = {
        "architecture": architecture,
        "classes": ["cat", "dog", "yak"],
        "input_size": [channels, 16, 16],
        "mean": [0.5, 0.4, 0.3][:channels],
        "std": [0.2, 0.3, 0.2][:channels],
        "fit": "pad",
        "interpolation": "bicubic",
        "crop_ratio": 0.9,
        "own_params": own,
        "activation": activation,
    }
    saved.save_model(net.state_dict(), description, folder)


def expected(folder: Path, images: list[Image.Image]) -> list[dict[str, Any]]:
    """What src.predict says."""
    from src.model.prediction import predict_rows, read_sample
    from src.model.saved import load_model

    net, description = load_model(folder)
    classes = description["classes"]
    rows = [read_sample(image, description, "image") for image in images]
    return [
        {
            "class": classes[int(row.argmax())],
            "probability": pytest.approx(float(row.max()), abs=1e-6),
            "probabilities": pytest.approx(dict(zip(classes, row, strict=True)), abs=1e-6),
        }
        for row in predict_rows(net, description, rows)
    ]


def predictions(model: Any, images: list[Any]) -> list[dict[str, Any]]:
    """What a model that MLflow has loaded says of images, each as text or bytes."""
    import pandas as pd  # type: ignore[import-untyped]

    found: list[dict[str, Any]] = model.predict(pd.DataFrame({"image": images})).to_dict("records")
    return found


@pytest.mark.slow
def test_a_saved_model_predicts_without_the_repository_and_without_pickle(tmp_path: Path) -> None:
    save_model(tmp_path / "models", "sigmoid")
    serving.save(tmp_path / "models", tmp_path / "elsewhere/model", run_id=None)
    images = random_images(3)
    (tmp_path / "elsewhere/images.json").write_text(json.dumps([as_text(i) for i in images]))
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(serving.ROOT)],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found == {"found": expected(tmp_path / "models", images), "repository": []}
    files = {path.suffix for path in (tmp_path / "elsewhere/model").rglob("*") if path.is_file()}
    assert files == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert done.stderr == ""


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    import mlflow

    save_model(tmp_path / "models", "softmax")
    serving.save(tmp_path / "models", tmp_path / "model", run_id=None)
    before = sys.path.copy()
    yield mlflow.pyfunc.load_model(str(tmp_path / "model"))
    sys.path[:] = before  # MLflow leaves the code of the model in it


def test_an_own_net_is_served_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What becomes of own_net in the repository does not matter."""
    import mlflow

    from src.yours import net

    save_model(tmp_path / "models", "softmax", "own")
    serving.save(tmp_path / "models", tmp_path / "model", run_id=None)
    images = random_images(2)
    before = expected(tmp_path / "models", images)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(net, "own_net", lambda *_: None)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert predictions(loaded, [as_text(image) for image in images]) == before
    assert "own_net" not in capsys.readouterr().err


def test_bytes_and_several_rows_in_a_process_with_other_code(loaded: Any, tmp_path: Path) -> None:
    import src.images.fit

    images = random_images(130)  # more than a batch
    content = [base64.b64decode(as_text(image)) for image in images]
    assert predictions(loaded, content) == expected(tmp_path / "models", images)
    assert sys.modules["src.images.fit"] is src.images.fit  # the repository has its own again
    used = sys.modules[type(loaded.unwrap_python_model()).__module__]
    own = used._own_modules["src.images.fit"].__file__
    assert Path(own).is_relative_to(tmp_path / "model/code")


def test_colour_that_a_grey_net_does_not_see_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    monkeypatch.setattr(sys, "path", sys.path.copy())
    line = "in colour, which this model, made with prepare.channels=1, sees as grey: 1 of 2 rows"
    for channels, wanted in ((1, [f"{line}; not said again"]), (3, [])):
        save_model(tmp_path / f"{channels}", "softmax", channels=channels)
        serving.save(tmp_path / f"{channels}", tmp_path / f"served {channels}", run_id=None)
        loaded = mlflow.pyfunc.load_model(str(tmp_path / f"served {channels}"))
        caplog.clear()
        predictions(loaded, [as_text(GREY)])
        for _ in range(2):
            predictions(loaded, [as_text(GREY), as_text(COLOUR)])
        assert [record.getMessage() for record in caplog.records] == wanted


GREY, COLOUR = random_images(2)
DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
LINES = base64.encodebytes(base64.b64decode(as_text(COLOUR))).decode()


@pytest.mark.parametrize(
    "rows",
    [
        [as_text(GREY), as_text(DEEP)],
        [as_text(COLOUR), LINES],
        [as_text(COLOUR, kind) for kind in ("PNG", "BMP", "TIFF", "PPM")],
    ],
    ids=["16 bits", "lines as base64 breaks them", "formats that prepare reads"],
)
def test_the_same_image_in_another_form(rows: list[str], loaded: Any) -> None:
    first, *others = predictions(loaded, rows)
    assert others == [first] * (len(rows) - 1)
    assert len({row.strip() for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no base64!", "image of row 1 is not base64 text"),
        (None, "image of row 1 is not base64 text"),
        (base64.b64encode(b"GIF89a").decode(), "image of row 1 cannot be used: it holds no ima"),
        (as_text(Image.new("RGB", (64, 64)))[:80], "row 1 cannot be used: it is cut short"),
        (as_text(Image.new("1", (10_000, 9_000))), "row 1 cannot be used: it has too many pixels"),
    ],
)
def test_what_is_no_image_is_named(loaded: Any, value: Any, message: str) -> None:
    from mlflow import MlflowException

    with pytest.raises(MlflowException, match=message) as caught:
        predictions(loaded, [as_text(GREY), value])
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize("sent_later", [False, True])
def test_log_model_keeps_the_names_of_the_files(sent_later: bool, project: Path) -> None:
    save_model(project / "models", "softmax")
    with store_at(NOWHERE if sent_later else ""), tracking.start(Stage("train")) as run:
        run.log_model(Path("models"))
    if sent_later:
        train()
    [stored] = runs(project)
    folder = artifacts(project, stored) / "model"
    names = {path.name for path in folder.iterdir()}
    assert {"MLmodel", "model.json", "model.safetensors"} <= names
    known = f"run_id: {stored.info.run_id}" in (folder / "MLmodel").read_text()
    assert known == (not sent_later)
    assert "mlflow==" in (folder / "requirements.txt").read_text()
    assert (folder / "code/src/model/prediction.py").is_file()
    assert not list((project / ".cache").glob("model-*"))


def test_a_model_that_cannot_be_saved_stops_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models").mkdir(exist_ok=True)
    Path("models/model.json").write_text("{}")
    with tracking.start(Stage("train")) as run:
        run.log_model(Path("models"))
        run.log_metrics({"loss": 0.5}, step=1)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking: the model of the run cannot be served: ")
    [stored] = runs(project)
    assert stored.info.status == "FINISHED"
    names = sorted(path.name for path in (artifacts(project, stored) / "model").iterdir())
    assert names == ["model.json", "model.safetensors"]


@pytest.mark.slow
def test_mlflow_serves_the_model_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = copy_project(tmp_path / "small")
    set_params(folder, **{**SMALL, "tracking": "true"})
    for name in STAGES:
        run_stage(folder, name)
    with working_in(folder):
        run_id = next(run.info.run_id for run in runs(folder) if run.data.tags["stage"] == "train")
        uri = store.tracking_uri(folder)
    port = free_port()
    command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", f"runs:/{run_id}/model", "-h", "127.0.0.1", "-p", str(port)]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    log = tmp_path / "server.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(server, f"{address}/ping", log)
        images = random_images(5)
        rows = [as_text(image) for image in images]
        predicted = {"predictions": expected(folder / "models", images)}
        assert ask(address, rows) == (200, predicted)
        status, found = ask(address, [rows[0], "nothing"])
        assert status == 400
        assert "image of row 1" in found["message"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the group that this test started
        server.wait()


def ask(address: str, images: list[str]) -> tuple[int, dict[str, Any]]:
    body = {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}}
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
