"""Saves the trained model in MLflow's format, so that one command predicts with it:

    mlflow models serve --env-manager local -m runs:/<run id>/model

Models-from-code: a script, the weights as safetensors, and the few files of `src` that prediction
needs; no pickle. What it takes and gives: see served.py.
"""

import base64
import importlib
import json
import shutil
import tempfile
from pathlib import Path

from src.base.imports import ROOT, imports_of
from src.base.kinds import kind_of, kind_part
from src.plumbing import dvc_files

SCRIPT = Path(__file__).resolve().with_name("served.py")
FILES = ("model.json", "model.safetensors")
# Of requirements/versions.yaml. Given, because MLflow takes a minute to find them by loading.
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def save(model: Path, target: Path, run_id: str | None) -> None:
    """Write the model of the folder `model` into the empty folder `target`: 0.5 s of CPU
    the first time, for pandas, later 0.1 s (measured). `run_id`: the run that it is for, if any."""
    import mlflow
    import pandas as pd  # type: ignore[import-untyped]

    importlib.reload(mlflow.models)  # store.connect imports it without pandas, and so in part
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    description = json.loads((model / "model.json").read_text(encoding="utf-8"))
    versions = dvc_files.read_versions()
    requirements = [f"{name}=={versions[name]}" for name in PACKAGES if name in versions]
    kind = kind_of(description)
    column = kind.removesuffix("s")  # `image` of `images`
    example = base64.b64encode(kind_part(kind, "packing").example(description)).decode()
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, column)]),
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
            input_example=pd.DataFrame({column: [example]}),
            pip_requirements=[f"mlflow=={mlflow.__version__}", *requirements],
            mlflow_model=about,
        )
    for name in FILES:  # beside the script, under the names that they have in models/
        shutil.copyfile(model / name, target / name)
    files = [file for file in target.rglob("*") if file.is_file()]
    about.model_size_bytes = sum(file.stat().st_size for file in files)
    about.save(str(target / "MLmodel"))


def _copy_code(folder: Path) -> Path:
    """Copy the files of src that the script imports, directly or not, to `folder`/src."""
    todo = list(imports_of(SCRIPT.relative_to(ROOT).as_posix()))
    while todo:
        module = todo.pop()
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            copy = folder / path
            if path.startswith("src/") and (ROOT / path).is_file() and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, copy)
                # Importing a module runs its packages.
                todo += [module.rpartition(".")[0], *imports_of(path)]
    return folder / "src"
