"""Which files of src/ a stage's module can run: its import closure, found by reading the code.

`python -m src.closure` writes it into dvc.yaml.
"""

import ast
import functools
import re
from pathlib import Path

import yaml

from src.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

# What provably cannot change an output, so that an edit there re-runs nothing:
# - src/tracking/, src/terminal.py, src/stage.py and what only they need (src/process.py,
#   src/locks.py, src/errors.py): the pipeline gives the same with stand-ins for them that do next
#   to nothing (tests/test_slow_reproduction.py);
# - src/params.py and src/schema.py: tests/test_params.py holds the parsed values equal to those
#   that DVC hashes;
# - an __init__.py that holds a docstring alone.
EXCLUDED = (
    "src/tracking/",
    "src/terminal.py",
    "src/stage.py",
    "src/process.py",
    "src/locks.py",
    "src/errors.py",
    "src/params.py",
    "src/schema.py",
)

# Folders that a stage uses whole: one dependency instead of many. DVC takes about 1 ms for each.
# One inside another stands after it.
WHOLE = (
    "src/checks",
    "src/data",
    "src/packing",
    "src/preparation",
    "src/training",
    "src/training/nets",
)


def dependencies(module: str) -> set[str]:
    """What stands among the deps of a stage: the files of its closure, but a folder of WHOLE as one
    if all of its files belong to it."""
    found = closure(module)
    for folder in WHOLE:
        inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
        code = {path for path in inside if not is_docstring_alone(ROOT / path)}
        if code and code <= found:
            found = (found - code) | {folder}
    return found


def require_declared(pipeline: str) -> None:
    """InputError if code that a stage of this project can run is none of its deps in `pipeline`,
    the text of dvc.yaml: an edit there would re-run nothing, and dvc.lock would vouch for another
    result. Stages that somebody added are theirs to declare."""
    for name, entry in yaml.safe_load(pipeline)["stages"].items():
        module = f"src.{name.replace('-', '_')}"
        if str(entry.get("cmd")).split()[:3] != ["python", "-m", module]:
            continue
        deps = tuple(entry["deps"])
        for path in sorted(closure(module)):
            if path not in deps and not path.startswith(tuple(f"{dep}/" for dep in deps)):
                raise InputError(
                    f"dvc.yaml: stage {name} uses {path}, which is none of its deps, so that an "
                    "edit there would change nothing: `python -m src.closure` writes the deps"
                )


def is_docstring_alone(path: Path) -> bool:
    """Whether a file holds nothing that runs."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return len(body) == 1 and ast.get_docstring(ast.Module(body, [])) is not None


def closure(*modules: str) -> set[str]:
    """Paths below the repository of all files that `modules` (`src.train`) import, themselves too,
    less what cannot change an output."""
    found: set[str] = set()
    for module in modules:
        _visit(module, found)
    return {path for path in found if not is_docstring_alone(ROOT / path)}


def _visit(module: str, found: set[str]) -> None:
    path = _path_of(module)
    if path is None or path in found or path.startswith(EXCLUDED):
        return
    found.add(path)
    if "." in module:
        _visit(module.rpartition(".")[0], found)  # importing a module runs its packages
    for imported in _imports(path):
        _visit(imported, found)


def _path_of(module: str) -> str | None:
    base = module.replace(".", "/")
    for path in (f"{base}.py", f"{base}/__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


@functools.cache
def _imports(path: str) -> set[str]:
    return imports_of(ast.parse((ROOT / path).read_text(encoding="utf-8")), path)


def imports_of(code: ast.AST, path: str) -> set[str]:
    """Modules of src that code of the file `path` imports, in functions too; not those for the type
    checker."""
    names: set[str] = set()
    todo = [code]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from .x import y`: one dot is the file's own folder, each further one that above.
            above = path.split("/")[: -node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        todo.extend(ast.iter_child_nodes(node))
    return {name for name in names if name == "src" or name.startswith("src.")}


def rewrite(text: str) -> str:
    """dvc.yaml with the code among the deps of each stage brought up to date; the rest as it is."""

    def stage(match: re.Match[str]) -> str:
        entry, module = match[0], match[1]
        code = "".join(f"      - {path}\n" for path in sorted(dependencies(module)))
        first = entry.index("      - src/")
        return entry[:first] + code + re.sub(r" {6}- src/.*\n", "", entry[first:])

    return re.sub(r"(?m)^    cmd: python -m (\S+)(?:.*\n)+?(?=    params:)", stage, text)


if __name__ == "__main__":
    file = ROOT / "dvc.yaml"
    file.write_text(rewrite(file.read_text(encoding="utf-8")), encoding="utf-8")
