"""Which files of src/ a module can run: itself and all that it imports, found by reading the code.

`python -m src.deps` writes those of each stage into dvc.yaml.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from src.base.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]

# The wall: nothing in these folders can change an output, so that an edit there re-runs nothing.
# A test ran the pipeline with stand-ins for all of them and got the same outputs.
EXCLUDED = ("src/tracking/", "src/plumbing/")


def files_of(*modules: str) -> set[str]:
    """Paths, relative to the repository, of the files that `modules` (`src.train`) can run: their
    own and all that these import, less what cannot change an output and files with a docstring
    alone. ValueError, with file and line, for an import that only a run of the code could tell."""
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
    return {path for path in found if not _parts(path, _text(path))[1]}


def imports_of(path: str) -> set[str]:
    """The modules that the file `path` of the repository imports, in functions too; not those for
    the type checker. `kind_part(kind, "augment")` imports that module of every kind."""
    return _parts(path, _text(path))[0]


@functools.cache
def is_docstring_alone(path: Path) -> bool:
    """Whether a file holds nothing that runs."""
    return _parts(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))[1]


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _path_of(module: str) -> str | None:
    base = module.replace(".", "/")
    names = (f"{base}.py", f"{base}/__init__.py") if f"{base}/".startswith("src/") else ()
    return next((path for path in names if (ROOT / path).is_file()), None)


@functools.cache
def _parts(path: str, text: str) -> tuple[set[str], bool]:
    """The modules that a file imports, and whether it is a docstring alone."""
    names: set[str] = set()
    code = ast.parse(text, path)
    todo: list[ast.AST] = [code]
    # Only statements import; to look into all expressions too takes five times as long.
    children = ast.iter_child_nodes if "kind_part" in text else _statements
    while todo:
        node = todo.pop()
        match node:
            case ast.If(ast.Name("TYPE_CHECKING")):
                todo.extend(node.orelse)
                continue
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                # `from .x import y`: one dot is the file's own folder, each further one that above.
                above = path.split("/")[: -node.level] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                names.add(module)
                names.update(f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(called, [_, ast.Constant(str(part))]) if name_of(called) == "kind_part":
                names.update(f"src.{kind}.{part}" for kind in KINDS)
            case ast.Call(called) if name_of(called) == "kind_part":
                raise ValueError(
                    f"{path}:{node.lineno}: kind_part takes the kind and the name of a module as "
                    "a constant: else the deps of a stage could not be read from the code"
                )
        todo.extend(children(node))
    return names, len(code.body) == 1 and ast.get_docstring(code) is not None


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        yield from getattr(node, part, ())


def name_of(node: ast.AST) -> str:
    """The last part of a name in the code, `c` of `a.b.c`; empty for anything else."""
    return str(getattr(node, "id", getattr(node, "attr", "")))
