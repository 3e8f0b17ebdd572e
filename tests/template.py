"""The template as shipped: tests depend on nobody's params.yaml, stages or data."""

import functools
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from src.base.imports import ROOT
from src.plumbing import params, schema
from src.plumbing.dvc_files import STAGES

# Without your own keys, which may be any.
SCHEMA = {key: of for key, of in schema.SCHEMA.items() if not key.startswith(f"{schema.YOURS}.")}
VALUES = Path(__file__).with_name("template.yaml")
DATA = ("data/README.md", "data/builtin/README.md", "data/weights/none")


@functools.cache
def params_text() -> str:
    """params.yaml with the template's values; keys that it does not have keep their own."""
    yaml = YAML()
    yaml.width = 10_000
    found, wanted = yaml.load(ROOT / "params.yaml"), yaml.load(VALUES)
    for key, value in wanted.items():
        if isinstance(value, dict):
            found[key].update(value)
        else:
            found[key] = value
    text = io.StringIO()
    yaml.dump(found, text)
    return text.getvalue()


def pipeline_text() -> str:
    """dvc.yaml without the stages that the template does not have."""
    kept, section, wanted = [], "", True
    for line in (ROOT / "dvc.yaml").read_text().splitlines(keepends=True):
        if found := re.match(r"(\w+):", line):
            section, wanted = found[1], True
        elif section == "stages" and (found := re.match(r"  ([\w-]+):", line)):
            wanted = found[1] in STAGES
        if wanted:
            kept.append(line)
    return "".join(kept)


def values() -> dict[str, Any]:
    """What `params_text` says, as a stage reads it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(params_text())
        return params.load(folder)


def write(folder: Path) -> None:
    """params.yaml, dvc.yaml and the data that come with the template."""
    for name in DATA:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(params_text())
    (folder / "dvc.yaml").write_text(pipeline_text())
