"""Which files of src/ a module can run: itself and all that it imports, found by reading the code.

`python -m src.deps` writes those of each stage into dvc.yaml.
"""

import ast
import functools
from pathlib import Path

from src.base.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]

# The wall: nothing in these folders can change an output, so that an edit there re-runs nothing.
# tests/pipeline/test_reproduction.py gets the same outputs with stand-ins for all of them.
EXCLUDED = ("src/tracking/", "src/plumbing/")


def files_of(*modules: str) -> set[str]:
    """Paths, relative to the repository, of the files that `modules` (`src.train`) can run: their
    own and all that these import, directly or not, less what cannot change an output and files
    that hold a docstring alone. ValueError, with file and line, for an import that only a run of
    the code could tell."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        path = _path_of(module)
        if path is None or path in found or path.startswith(EXCLUDED):
            continue
        found.add(path)
        todo.append(module.rpartition(".")[0])  # importing a module runs its packages
        todo += imports_of(path)
    return {path for path in found if not is_docstring_alone(ROOT / path)}


def imports_of(path: str) -> set[str]:
    """The modules that the file `path` of the repository imports, in functions too; not those for
    the type checker. `kind_part(kind, "augment")` imports that module of every kind."""
    return _imports(path, (ROOT / path).read_text(encoding="utf-8"))


def is_docstring_alone(path: Path) -> bool:
    """Whether a file holds nothing that runs."""
    return _is_docstring_alone(path.read_text(encoding="utf-8"))


@functools.cache
def _is_docstring_alone(text: str) -> bool:
    code = ast.parse(text)
    return len(code.body) == 1 and ast.get_docstring(code) is not None


def _path_of(module: str) -> str | None:
    if module.partition(".")[0] != "src":
        return None
    base = module.replace(".", "/")
    names = (f"{base}.py", f"{base}/__init__.py")
    return next((path for path in names if (ROOT / path).is_file()), None)


@functools.cache
def _imports(path: str, text: str) -> set[str]:
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(text, path)]
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
        elif isinstance(node, ast.Call) and _name_of(node.func) == "kind_part":
            part = node.args[1] if len(node.args) == 2 else None
            if not isinstance(part, ast.Constant) or not isinstance(part.value, str):
                raise ValueError(
                    f"{path}:{node.lineno}: kind_part takes the kind and the name of a module as "
                    "a constant: else the deps of a stage could not be read from the code"
                )
            names.update(f"src.{kind}.{part.value}" for kind in KINDS)
        todo.extend(ast.iter_child_nodes(node))
    return names


def _name_of(function: ast.expr) -> str:
    return str(getattr(function, "id", getattr(function, "attr", "")))
