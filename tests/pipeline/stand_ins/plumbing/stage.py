"""A stage without guards. Its fingerprint is computed from the definition alone: sha256 of {cmd,
deps: {path: md5 as DVC writes it}, params}."""

import hashlib
import json
import re
from pathlib import Path

import yaml

from src.plumbing import params


def md5_of(path):
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    names = sorted(file.relative_to(path).as_posix() for file in files)
    listed = [{"md5": md5_of(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listed).encode()).hexdigest() + ".dir"


def canonical(value):
    """Every spelling that means the same is equal."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


class Stage:
    def __init__(self, name):
        self.root, self.params = Path.cwd(), params.load()

        def filled(text):
            return re.sub(r"\$\{(.+?)\}", lambda key: str(self.params[key[1]]), text)

        entry = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name]
        declared = {key: self.params[key] for key in entry["params"] if isinstance(key, str)}
        for file, packages in next(key for key in entry["params"] if isinstance(key, dict)).items():
            versions = yaml.safe_load(Path(file).read_text())
            declared |= {f"{file}:{package}": versions[package] for package in packages}
        self.deps_md5 = {dep: md5_of(Path(dep)) for dep in map(filled, entry["deps"])}
        identity = {
            "cmd": filled(entry["cmd"]),
            "deps": self.deps_md5,
            "params": {key: canonical(value) for key, value in declared.items()},
        }
        text = json.dumps(identity, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def confirm_inputs(self):
        pass


def run_stage(name, main):
    main(Stage(name))
