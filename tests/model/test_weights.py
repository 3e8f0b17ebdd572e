"""Pretrained weights: fetching them from a hub, what their files say, and what it means here."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from torchvision import models

from src import weights
from src.model.create import create_model
from src.model.nets.pretrained import disagreements, normalisation, read_metadata
from src.model.nets.weights_file import write_weights
from src.plumbing.errors import GateError, InputError
from tests.conftest import copy_project, working_in

GREY = {
    "size": 32,
    "channels": 1,
    "mean": [0.3],
    "std": [0.2],
    "interpolation": "bilinear",
    "fit": "crop",
}
COLOUR = GREY | {"channels": 3, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
ADDRESS = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model("test_resnet").state_dict()


class Hub(BaseHTTPRequestHandler):
    """Serves files at the paths and with the headers of the Hugging Face hub."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        content = self.files.get(self.path.partition("?")[0])
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("X-Repo-Commit", "0" * 40)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", '"' + "1" * 64 + '"')
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path.partition("?")[0], b""))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run_tool(
    folder: Path, home: Path, port: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(home),
        "no_proxy": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "src.weights", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_weights_come_from_the_hub_once(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    Hub.files[ADDRESS] = save(donor())
    project, port = copy_project(tmp_path / "project"), hub.server_address[1]
    ended = run_tool(project, tmp_path / "home", port, "test_resnet")
    assert ended.returncode == 0, ended.stderr
    path = project / "data/weights/test_resnet.safetensors"
    fetched = load_file(path)
    assert fetched.keys() == donor().keys()
    assert all(torch.equal(fetched[key], value) for key, value in donor().items())
    assert read_metadata(path) == {
        "architecture": "test_resnet.r160_in1k",
        "num_classes": 1000,
        "input_size": [3, 160, 160],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "crop_ratio": 0.95,
        "fit": "crop",
        "license": "apache-2.0",
        "source": "https://huggingface.co/timm/test_resnet.r160_in1k",
    }
    assert "dvc add data/weights/test_resnet.safetensors" in ended.stdout
    assert (
        "git add data/weights/test_resnet.safetensors.dvc data/weights/.gitignore" in ended.stdout
    )
    assert (
        "dvc exp run -S model=test_resnet -S weights=data/weights/test_resnet.safetensors "
        "-S prepare.size=160 -S prepare.interpolation=bilinear -S prepare.crop_ratio=0.95 "
        "-S prepare.channels=3" in ended.stdout
    )
    written = path.stat()
    Hub.files.clear()
    again = run_tool(project, tmp_path / "other", port, "test_resnet")
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stdout
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    # The hub knows the model and has no safetensors of it.
    forced = run_tool(project, tmp_path / "other", port, "test_resnet", "--force")
    assert forced.returncode == 2
    assert f"127.0.0.1:{port}{ADDRESS} does not exist" in forced.stderr
    assert len(forced.stderr.splitlines()) == 1
    assert path.stat().st_ino == written.st_ino
    assert [item.name for item in path.parent.iterdir() if item.name.startswith(".")] == []


@pytest.mark.slow
def test_no_network_is_said_in_one_line(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    with socket.socket() as refusing:  # it does not listen, and nobody else can take the port
        refusing.bind(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        ended = run_tool(project, tmp_path / "home", port, "test_resnet")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert f"http://127.0.0.1:{port}{ADDRESS} cannot be fetched" in ended.stderr
    assert not (project / "data/weights/test_resnet.safetensors").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("tset_resnet", "did you mean test_resnet?"),
        ("test_resnet.r161_in1k", "has no tag 'r161_in1k', did you mean r160_in1k?"),
        ("coatnet_0_224", "has no pretrained weights: use one of coatnet_"),
        ("torchvision:resnet19", "did you mean resnet1"),
        ("torchvision:inception_v3", "auxiliary outputs"),
        ("hf-hub:timm/resnet18", "must be the name of a timm model"),
    ],
)
def test_models_without_weights_say_so(model: str, words: str, tmp_path: Path) -> None:
    with working_in(tmp_path), pytest.raises(InputError) as caught:
        weights.fetch(model)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def checkpoints(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of files that it has fetched before."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    folder = home / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    state = models.squeezenet1_1(weights=None).state_dict()
    torch.save(state, checkpoints(tmp_path, monkeypatch) / "squeezenet1_1-b8a52dc0.pth")
    with working_in(tmp_path):
        path = weights.fetch("torchvision:squeezenet1_1")
    fetched = load_file(tmp_path / path)
    assert all(torch.equal(fetched[key], value) for key, value in state.items())
    about = read_metadata(tmp_path / path)
    assert about is not None
    assert about["mean"] == [0.485, 0.456, 0.406]
    assert (about["input_size"], about["crop_ratio"]) == ([3, 224, 224], 0.875)
    model = create_model("torchvision:squeezenet1_1", 4, (1, 64, 64), weights=str(tmp_path / path))
    summed = state["features.0.weight"].sum(dim=1, keepdim=True)
    assert torch.allclose(model.state_dict()["features.0.weight"], summed)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch was_run",)


def test_pickles_that_hold_programs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For timm's few models that are not on the hub."""
    config = timm.get_pretrained_cfg("legacy_seresnet18")
    assert config is not None
    assert not config.hf_hub_id
    name = str(config.url).rpartition("/")[2]
    torch.save({"fc.weight": Evil()}, checkpoints(tmp_path, monkeypatch) / name)
    with working_in(tmp_path), pytest.raises(GateError, match="holds more than tensors"):
        weights.fetch("legacy_seresnet18")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "data").exists()


def weights_file(path: Path, **about: object) -> str:
    write_weights(path, donor(), about)
    return str(path)


def test_normalisation_is_that_of_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert normalisation("data/weights/none", "test_resnet", GREY) == ([0.3], [0.2])
    assert capsys.readouterr().out == ""
    path = weights_file(tmp_path / "a.safetensors", mean=[0.4, 0.5, 0.9], std=[0.1, 0.2, 0.3])
    assert normalisation(path, "test_resnet", COLOUR) == ([0.4, 0.5, 0.9], [0.1, 0.2, 0.3])
    assert "from the metadata of a.safetensors" in capsys.readouterr().out
    mean, std = normalisation(path, "test_resnet", GREY)
    assert mean == pytest.approx([0.6])
    assert std == pytest.approx([0.2])
    assert "averaged for grey images" in capsys.readouterr().out
    # As model.json will hold them: prediction must not differ from training.
    path = weights_file(tmp_path / "b.safetensors", mean=[0.48145466], std=[0.26862954])
    assert normalisation(path, "test_resnet", GREY) == ([0.481455], [0.26863])


def test_a_file_without_metadata_is_taken_for_the_published_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "plain.safetensors")
    save_file(donor(), path)
    assert read_metadata(path) is None
    assert normalisation(path, "test_resnet", COLOUR) == ([0.5] * 3, [0.5] * 3)
    assert capsys.readouterr().out.count("timm's entry of test_resnet") == 1
    mean, _ = normalisation(path, "torchvision:resnet18", COLOUR)
    assert mean == [0.485, 0.456, 0.406]
    assert normalisation(path, "own", COLOUR) == (COLOUR["mean"], COLOUR["std"])


def test_metadata_in_entries_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = {"mean": "[0.1, 0.2, 0.3]", "interpolation": "bicubic", "format": "pt"}
    path.write_bytes(save(donor(), metadata=header))
    assert read_metadata(path) == {"mean": [0.1, 0.2, 0.3], "interpolation": "bicubic"}


@pytest.mark.parametrize(
    "about",
    [
        {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]},
        {"mean": [0.5] * 2, "std": [0.5] * 2},
        {"mean": "0.5", "std": [0.5]},
    ],
)
def test_metadata_that_make_no_sense_say_so(tmp_path: Path, about: dict[str, object]) -> None:
    path = weights_file(tmp_path / "w.safetensors", **about)
    with pytest.raises(InputError, match="makes no sense"):
        normalisation(path, "test_resnet", COLOUR)


def test_disagreements_name_what_to_set(tmp_path: Path) -> None:
    about = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_ratio": 0.875}
    path = weights_file(tmp_path / "w.safetensors", **about)
    assert disagreements("data/weights/none", "test_resnet", GREY) == []
    assert disagreements(path, "test_resnet", GREY) == [
        "prepare.size=224 (now 32)",
        "prepare.interpolation=bicubic (now bilinear)",
        "prepare.crop_ratio=0.875 (now 1)",
        "prepare.channels=3 (now 1)",
    ]
    agreed = COLOUR | {"size": 224, "interpolation": "bicubic", "crop_ratio": 0.875}
    assert disagreements(path, "test_resnet", agreed) == []
    # What can be written into params.yaml, and comes back from meta.json.
    path = weights_file(tmp_path / "t.safetensors", crop_ratio=224 / 232)
    assert disagreements(path, "own", COLOUR) == ["prepare.crop_ratio=0.965517 (now 1)"]
    assert disagreements(path, "own", COLOUR | {"crop_ratio": 0.965517}) == []
    squashed = weights_file(tmp_path / "s.safetensors", fit="squash")
    assert disagreements(squashed, "own", agreed) == ["prepare.fit=squash (now crop)"]


def test_weights_files_are_the_same_bytes_again(tmp_path: Path) -> None:
    """safetensors orders the metadata anew in each file, also of one process."""
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    about = {"mean": [0.5], "std": [0.5], "architecture": "x", "crop_ratio": 1.0}
    plain, files = set(), set()
    for number in range(20):
        path = tmp_path / f"{number}.safetensors"
        write_weights(path, tensors, about)
        files.add(path.read_bytes())
        plain.add(save(tensors, {key: str(value) for key, value in about.items()}))
    assert (len(files), len(plain) > 1) == (1, True)
    assert json.loads(files.pop()[8:].split(b"}}")[0].decode() + "}}")["__metadata__"]
