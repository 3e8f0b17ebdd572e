"""Saves the trained model in MLflow's format, so that one command answers pictures with it:

    mlflow models serve --env-manager local -m runs:/<run id>/model

Models-from-code: a script, the weights as safetensors, and the few files of `src` that prediction
needs; no pickle. What it takes and gives: see served.py.
"""

import ast
import base64
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from src.plumbing import dvc_files

SCRIPT = Path(__file__).with_name("served.py")
ROOT = Path(__file__).resolve().parents[3]
FILES = ("model.json", "model.safetensors")
# Of requirements/versions.yaml. Given, because MLflow takes a minute to find them by loading.
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def save(model: Path, target: Path, run_id: str | None) -> None:
    """Write the model of the folder `model` into the empty folder `target`: 0.5 s of CPU
    the first time, for pandas, later 0.1 s (measured). `run_id`: the run that it is for, if any."""
    import mlflow
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    description = json.loads((model / "model.json").read_text(encoding="utf-8"))
    versions = dvc_files.read_versions()
    requirements = [f"{name}=={versions[name]}" for name in PACKAGES if name in versions]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "class"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Map(DataType.double), "probabilities"),
            ]
        ),
    )
    about = Model(artifact_path="model", run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(SCRIPT),
            code_paths=[str(_copy_code(Path(folder)))],
            signature=signature,
            input_example=pd.DataFrame({"image": [_grey_picture(description)]}),
            pip_requirements=[f"mlflow=={mlflow.__version__}", *requirements],
            mlflow_model=about,
        )
    for name in FILES:  # beside the script, under the names that they have in models/
        shutil.copyfile(model / name, target / name)
    files = [file for file in target.rglob("*") if file.is_file()]
    about.model_size_bytes = sum(file.stat().st_size for file in files)
    about.save(str(target / "MLmodel"))


def _grey_picture(description: dict[str, Any]) -> str:
    """A picture for the input example, as base64 text."""
    from PIL import Image

    _, height, width = description["input_size"]
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _copy_code(folder: Path) -> Path:
    """Copy the files of src that the script imports, directly or not, to `folder`/src."""
    found: set[Path] = set()
    _add_imports(SCRIPT, found)
    for path in found:
        copy = folder / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, copy)
    return folder / "src"


def _add_imports(file: Path, found: set[Path]) -> None:
    """Add the files of src that `file` imports, by reading it and them; relative to the project."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    # What a tool imports only when it is run as a program.
    tree.body = [node for node in tree.body if "__name__ ==" not in ast.unparse(node)[:15]]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "src":
                _add_module(name, found)


def _add_module(name: str, found: set[Path]) -> None:
    base = Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / path).is_file() and path not in found:
            found.add(path)
            _add_imports(ROOT / path, found)
    if "." in name:  # importing a module runs its packages
        _add_module(name.rpartition(".")[0], found)
