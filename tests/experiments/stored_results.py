"""Many finished experiments as DVC leaves them, without training: one `git fast-import`."""

import copy
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from src.plumbing.dvc_files import STAGES, VERSIONS_FILE
from src.plumbing.hashes import md5_of, md5_of_folder
from src.plumbing.identity import METRICS, Entry, fingerprint_of
from src.plumbing.stage import Stage
from tests import template
from tests.conftest import set_params
from tests.tracking.tracked_project import MODEL, VARIABLES

IMAGES = 360
PREDICTIONS = "results/evaluate/predictions.csv"
HISTORY = "results/train/history.csv"
PARAMS = {"seed": "0", "model": "resnet10t", "lr": "0.001", "weights": "data/weights/none"}
DATA = "d" * 32 + ".dir"
IDENTITY = "Somebody <somebody@example.org> 1767225600 +0000"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def lock_of(entries: Mapping[str, Entry]) -> str:
    """The dvc.lock that DVC writes for entries in the form of `identity.locked_stage`."""
    stages: dict[str, Any] = {}
    for name, entry in entries.items():
        params: dict[str, dict[str, Any]] = {}
        for key, value in entry["params"].items():
            file, _, key_in_file = key.rpartition(":")
            params.setdefault(file or "params.yaml", {})[key_in_file] = value
        stages[name] = {"cmd": entry["cmd"], "params": params}
        for kind in ("deps", "outs"):
            stages[name][kind] = [{"path": path, "md5": md5} for path, md5 in entry[kind].items()]
    return yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)


def lock_of_stages() -> str:
    """The dvc.lock of the working directory, in which all stages have run."""
    entries: dict[str, Any] = {}
    for name in STAGES:
        stage = Stage(name)
        inputs = {"deps": stage.deps_md5, "params": stage.declared}
        outs = {out: md5_of(out) for out in stage.entry.outs}
        entries[name] = {"cmd": stage.entry.cmd, **inputs, "outs": outs}
    return lock_of(entries)


def result_files(
    root: Path,
    wrong: int,
    data: str = DATA,
    code: str = "1",
    cached: bool = True,
    evaluated: bool = True,
    machine: str = "",
    made_from: str = "",
    groups: int = 0,
    **params: object,
) -> dict[str, str]:
    """A result with `wrong` mistakes on val; predictions are cached; `machine` alters the model,
    whose description names the fingerprint of its training, or `made_from`; images are of so many
    `groups`."""
    values = PARAMS | {key: str(value) for key, value in params.items()}
    draws = np.random.default_rng(int(values["seed"]))
    mistakes = set(draws.permutation(IMAGES)[:wrong].tolist())
    rows = [f"val,{i},{i % 10},{(i + (i in mistakes)) % 10}" for i in range(IMAGES)]
    rows += [f"test,{i},{i % 10},{i % 10}" for i in range(IMAGES)]
    header = "split,index,label,prediction"
    if groups:
        header += ",group"
        rows = [f"{row},P{int(row.split(',')[1]) % groups}" for row in rows]
    predictions = "\n".join([header, *rows]) + "\n"
    group = {"n": IMAGES, "accuracy": 1 - wrong / IMAGES, "log_loss": wrong / IMAGES}
    metrics = json.dumps({"val": group, "test": {"n": IMAGES, "accuracy": 1.0}})
    model = md5(json.dumps([values, data, code]) + machine)
    train = {
        "cmd": "python -m src.train",
        "deps": {"data/prepared": data, "src/training": md5_of_folder({"loop.py": md5(code)})},
        "params": {**values, f"{VERSIONS_FILE}:torch": "2"},
    }
    about = json.dumps({"fingerprint": made_from or fingerprint_of(train), "model": model})
    net = {"models/model.json": md5(about), MODEL: md5(model)}
    train["outs"] = net
    for text in (predictions, about) if cached else ():
        path = root / ".dvc/cache/files/md5" / md5(text)[:2] / md5(text)[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    evaluate = {
        "cmd": "python -m src.evaluate",
        "deps": {"data/prepared": data, **net},
        "params": {"evaluate.flip": "false"},
        "outs": {METRICS: md5(metrics), PREDICTIONS: md5(predictions)},
    }
    lock = lock_of({"train": train} | ({"evaluate": evaluate} if evaluated else {}))
    history = "epoch,val_loss,val_accuracy\n1,0.5,0.8\n2,0.1,0.9\n"
    return {"dvc.lock": lock, METRICS: metrics, HISTORY: history, "src/training/loop.py": code}


class Project:
    """A repository in `root` with a commit; `add` makes experiments on it, `write` stores them."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True)
        self._stream: list[str] = []
        self._git("init", "--quiet", "--initial-branch=main")
        (root / "params.yaml").write_text(template.params_text())
        set_params(root, **PARAMS, flip="false")  # whatever the project has today
        (root / "dvc.yaml").write_text("")
        (root / ".gitignore").write_text("/.cache/\n/.dvc/\n/mlflow.db*\n")
        (root / "docs").mkdir()
        (root / "docs/experiments.md").write_text("# Log\n\nLooks at test so far: 0\n")
        for path, text in result_files(root, wrong=5).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self._git("add", ".")
        self._git("commit", "--quiet", "--message", "results")
        self.head = self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str, stdin: str | None = None) -> str:
        identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        command = ["git", *identity, *arguments]
        return subprocess.check_output(command, cwd=self.root, input=stdin, text=True)

    def add(self, name: str, wrong: int, **options: object) -> None:
        """An experiment of a name, made on the commit; options as for `result_files`."""
        ref = f"refs/exps/{self.head[:2]}/{self.head[2:]}/{name}"
        self._stream.append(f"commit {ref}\ncommitter {IDENTITY}\ndata 0\nfrom {self.head}\n")
        for path, text in result_files(self.root, wrong, **options).items():  # type: ignore[arg-type]
            self._stream.append(f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n")

    def copy(self, folder: Path, patch: pytest.MonkeyPatch) -> "Project":
        """A copy in `folder`, as working directory of the test."""
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        copied = copy.copy(self)
        copied.root, copied._stream = Path(shutil.copytree(self.root, folder)), []
        patch.chdir(folder)
        return copied

    def write(self) -> None:
        self._git("fast-import", "--quiet", stdin="".join(self._stream))
        self._stream.clear()


def add_group(project: Project, name: str, wrong: list[int], **options: object) -> None:
    """Experiments <name>-<seed> of seeds 0, 1, 2 ... with these mistakes each."""
    for seed, count in enumerate(wrong):
        project.add(f"{name}-{seed}", count, seed=seed, **options)
