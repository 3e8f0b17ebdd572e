"""The project holds together: its stages run, with what is yours in them, and its files agree."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from src.base.imports import ROOT
from src.plumbing import deps, dvc_files, workspace

# Seconds of work for any set-up; all else is that of params.yaml, also own loss and augmentation.
SMALL = {
    "train_on": "prepared", "weights": "data/weights/none", "drop_rate": 0, "drop_path": 0,
    "freeze_epochs": 0, "epochs": 1, "patience": "none", "batch_size": 16, "accumulate": 1,
    "layer_decay": 1, "warmup": 0, "class_weights": "none", "augment_crop": 2, "precision": "fp32",
    "compile": "none",
    "prepare": {
        "source": "synthetic", "path": "data/builtin/README.md", "size": 32, "val_share": 0.2,
        "test_share": 0.2, "on_leak": "drop", "synthetic_classes": 3, "synthetic_pictures": 40,
    },
    "subset": {"train_per_class": 10, "val_per_class": 4},
    "overfit_check": {"on_fail": "report"},  # so few images may well be too few for a check
    "machine": {"device": "cpu", "prepare_workers": 0, "progress": "off", "tracking": False},
}  # fmt: skip


def small_copy(folder: Path) -> Path:
    """The files of the project, without its data and results, and with small settings."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")[:-1]
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.endswith(".dvc"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    file, yaml = folder / "params.yaml", YAML()
    params = yaml.load(file)
    for key, value in SMALL.items():
        if isinstance(value, dict):
            params[key].update(value)
        else:
            params[key] = value
    if params["model"] != "own":
        params["model"] = "test_resnet"
    yaml.dump(params, file)
    return folder


def test_the_pipeline_runs_on_a_little_data(tmp_path: Path) -> None:
    folder = small_copy(tmp_path / "project")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    environment = {"PATH": workspace.search_path(), "HOME": str(tmp_path)}
    for _ in range(2):
        ended = subprocess.run(
            ["dvc", "repro"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Running stage" not in ended.stdout, "with the same inputs nothing runs again"
    metrics = json.loads((folder / "results/evaluate/metrics.json").read_text())
    for split in ("val", "test"):
        assert 0 <= metrics[split]["accuracy"] <= 1


def test_dvc_yaml_declares_what_the_code_reads() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert set(dvc_files.STAGES) <= set(dvc_files.declared_stages(ROOT))
    assert deps.rewrite(text) == text, "`python -m src.deps` brings dvc.yaml up to date"


def test_links_lead_somewhere() -> None:
    listed = subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split("\n")
    broken = [
        f"{name}: {link}"
        for name in filter(None, listed)
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", (ROOT / name).read_text())
        if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()
    ]
    assert broken == []
