"""Which files of src/ a stage's module can run: its import closure, found by reading the code.

`python -m src.deps` writes it into dvc.yaml.
"""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The wall: nothing in these folders can change an output, so that an edit there re-runs nothing.
# tests/pipeline/test_reproduction.py gets the same outputs with stand-ins for all of them.
EXCLUDED = ("src/tracking/", "src/plumbing/")


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
