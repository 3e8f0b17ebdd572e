"""Which code a net of your own is: a hash that moves with all of this project that it can run."""

import ast
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.base.imports import ROOT, closure, imports_of


def code_hash(function: Callable[..., Any]) -> str:
    """A hash of a function with what it uses: functions and classes of its own file, and files of
    src/ that it or they import, with what these import. Comments on lines of their own and empty
    lines do not count; what is no part of this project does not either."""
    file = Path(inspect.getsourcefile(function) or "").resolve()
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    path = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.as_posix()
    defined = {name: node for node in tree.body for name in _names_of(node)}
    parts, modules = [inspect.getsource(function)], set[str]()
    todo, seen = [function.__name__], {function.__name__}
    while todo:
        name = todo.pop()
        node = defined.get(name)
        if node is None:
            continue
        modules |= imports_of(node, path)
        if not isinstance(node, ast.Import | ast.ImportFrom) and name != function.__name__:
            parts.append(ast.get_source_segment(text, node) or "")
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - seen
        seen |= used
        todo += sorted(used)
    files = sorted(closure(*modules) - {path})
    parts += [(ROOT / other).read_text(encoding="utf-8") for other in files]
    lines = [line.rstrip() for part in parts for line in part.splitlines()]
    code = [line for line in lines if line and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def _names_of(node: ast.stmt) -> list[str]:
    """What a statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []
