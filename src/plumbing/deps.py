"""The deps and params of the stages in dvc.yaml, read from the code that each stage can run.

A key of params.yaml is read as `params["key"]` or `stage.params["key"]`, so that it stands in the
code as text. What would have to be guessed, such as `params[name]`, is an error.
"""

import ast
import builtins
import functools
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from typing import Any

import yaml

from src.base.imports import ROOT, files_of, imports_of, is_docstring_alone, name_of
from src.plumbing import dvc_files
from src.plumbing.command import ACTIVATE
from src.plumbing.errors import InputError
from src.plumbing.params import UNDECLARED, did_you_mean
from src.plumbing.schema import SCHEMA
from src.plumbing.yaml_loaders import SafeLoader

# A module-level dict of this name gives its stage these params in place of those of params.yaml.
FIXED = "FIXED"
YOURS = "src/yours"  # its files come and go: one that no stage imports must not run them again


def code_of(module: str) -> list[str]:
    """The code among the deps of the stage that runs `module`: the files that it can run, but a
    folder as one where it runs all of its files, for DVC takes about 1 ms for each dep."""
    found = _files_of(module)
    folders = {path.parent for path in (ROOT / "src").glob("*/**/*.py")}
    for folder in sorted(folder.relative_to(ROOT).as_posix() for folder in folders):
        inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
        code = {path for path in inside if not is_docstring_alone(ROOT / path)}
        if len(code) > 1 and code <= found and folder != YOURS:
            found = (found - code) | {folder}
    return sorted(found)


def params_of(module: str) -> list[str]:
    """The keys of params.yaml that a stage's code reads, in the schema's order, less those it fixes
    and `machine.*`. InputError, with file and line, for a key that only a run could tell."""
    paths = _files_of(module)
    found = [_keys(path, (ROOT / path).read_text(encoding="utf-8")) for path in paths]
    read, fixed = (set().union(*sets) for sets in zip(*found, strict=True))
    return [key for key in SCHEMA if key in read - fixed and not key.startswith(UNDECLARED)]


def versions_of(module: str) -> list[str]:
    """The packages of requirements/versions.yaml that the code of a stage imports."""
    modules = {name.partition(".")[0] for path in _files_of(module) for name in imports_of(path)}
    packages = _distributions()
    installed = {package for names in packages.values() for package in names}
    used = {package for module in modules for package in packages.get(module, [])}
    known = list(dvc_files.read_versions(ROOT))
    if missing := [package for package in known if package not in installed]:
        raise InputError(f"{missing[0]} is not installed in {sys.executable}: {ACTIVATE}")
    return [package for package in known if package in used]


def require_declared(pipeline: str) -> None:
    """InputError if a stage can run code that is none of its deps in `pipeline`, the text of
    dvc.yaml: an edit there would re-run nothing. Only stages that run a module of src count."""
    for stage, entry in entries(pipeline):
        deps = tuple(entry.get("deps") or ())
        for path in sorted(_files_of(dvc_files.module_of(entry["cmd"]))):
            if path not in deps and not path.startswith(tuple(f"{dep}/" for dep in deps)):
                raise InputError(
                    f"dvc.yaml: stage {stage} uses {path}, which is none of its deps, so that an "
                    "edit there would change nothing: `python -m src.deps` writes the deps"
                )


def rewrite(pipeline: str) -> str:
    """The text of dvc.yaml with the code among the deps, and the params, of each stage that runs a
    module of src, as its code has them. All the rest stays as it is, comments too."""
    for stage, entry in entries(pipeline):
        module = dvc_files.module_of(entry["cmd"])
        used = versions_of(module)
        versions = [f"{dvc_files.VERSIONS_FILE}: [{', '.join(used)}]"] if used else []
        pipeline = with_items(pipeline, stage, "deps", code_of(module), "src/")
        pipeline = with_items(pipeline, stage, "params", [*params_of(module), *versions], "")
    return pipeline


def entries(pipeline: str) -> list[tuple[str, dict[str, Any]]]:
    """The stages in the text of dvc.yaml that run a module of src, with their entries. InputError
    if it cannot be read."""
    with dvc_files.readable("stages"):
        stages = yaml.load(pipeline, SafeLoader)["stages"].items()
        return [(stage, raw) for stage, raw in stages if dvc_files.module_of(raw.get("cmd"))]


def with_items(pipeline: str, stage: str, name: str, wanted: list[str], begin: str) -> str:
    """dvc.yaml with the items `wanted` in a list of a stage, in place of those that begin with
    `begin`. An item that stays keeps what is said above and beside it. InputError for a list in
    another form; a stage without one gets it."""
    entry = rf"(?m)^  {re.escape(stage)}:.*\n((?!  \w).*\n)*?    "
    found = re.search(rf"{entry}{name}:\n(?= {{6}})", pipeline)
    if found is None and not re.search(rf"{entry}{name}:", pipeline):
        command = re.search(rf"{entry}cmd:.*\n( {{5,}}.*\n)*", pipeline)
        if command is None or not wanted:
            return pipeline
        lines = "".join(f"      - {item}\n" for item in wanted)
        return f"{pipeline[: command.end()]}    {name}:\n{lines}{pipeline[command.end() :]}"
    if found is None:
        raise InputError(f"dvc.yaml: stage {stage} needs a list `{name}` with an item on each line")
    items: dict[str, str] = {}  # its text in dvc.yaml: comments above it and its own lines
    end, item, lines = found.end(), "", ""
    for line in pipeline[found.end() :].splitlines(keepends=True):
        lines += line
        if match := re.match(r" {6}- (.+?)(?: +#.*)?\n", line):
            item = match[1]
        elif not line.strip() or line.lstrip().startswith("#"):
            continue
        elif not line.startswith(" " * 7):
            break
        items[item] = items.get(item, "") + lines
        end, lines = end + len(lines), ""
    others = [text for item, text in items.items() if not item.startswith(begin)]
    ours = [items.get(item, f"      - {item}\n") for item in wanted]
    return pipeline[: found.end()] + "".join(others + ours) + pipeline[end:]


def _files_of(module: str) -> set[str]:
    try:
        return files_of(module)
    except SyntaxError as error:
        raise InputError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise InputError(str(error)) from None


# {"PIL": ["pillow"], ...}
_distributions = functools.cache(packages_distributions)


@functools.cache
def _keys(path: str, text: str) -> tuple[set[str], set[str]]:
    """The keys of params.yaml that a file reads, and those that it fixes."""
    code = ast.parse(text)
    return set(_keys_read(code, path)), set(_keys_fixed(code, path))


def _keys_read(code: ast.Module, path: str) -> Iterator[str]:
    for parent in ast.walk(code):
        for node in ast.iter_child_nodes(parent):
            match node:
                case ast.Name("params", ast.Load()) | ast.Attribute(_, "params", ast.Load()):
                    if isinstance(parent, ast.Subscript):
                        yield _key(parent.slice, parent, path)
                    elif not _is_handed_on(parent):
                        raise _unclear(parent, node.lineno, path)


def _is_handed_on(parent: ast.AST) -> bool:
    """Whether params go on from here whole and as `params`: to a function, from one, or kept under
    this name. Also whether they are the module of that name, which is no mapping."""
    if isinstance(parent, ast.Call):
        return not hasattr(builtins, getattr(parent.func, "id", ""))  # dict(params) reads them all
    if isinstance(parent, ast.Attribute):
        return not hasattr(dict, parent.attr)
    if isinstance(parent, ast.keyword):
        return parent.arg == "params"
    return isinstance(parent, ast.Return) or _named(parent) == {"params"}


def _named(node: ast.AST) -> set[str]:
    """The names that an assignment gives to its value."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {name_of(target) for target in targets}


def _keys_fixed(code: ast.Module, path: str) -> Iterator[str]:
    for node in code.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and _named(node) == {FIXED}:
            keys = node.value.keys if isinstance(node.value, ast.Dict) else [None]
            yield from (_key(key, node, path) for key in keys)


def _key(node: ast.expr | None, within: ast.expr | ast.stmt, path: str) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        raise _unclear(within, within.lineno, path)
    if node.value not in SCHEMA:
        hint = did_you_mean(node.value, SCHEMA)
        raise InputError(f"{path}:{node.lineno}: {node.value} is no key of params.yaml{hint}")
    if path.startswith(f"{YOURS}/") and node.value.startswith(UNDECLARED):
        raise InputError(
            f"{path}:{node.lineno}: {node.value} says where and how a stage runs, which must not "
            "change a result: leave it out"
        )
    return node.value


def _unclear(code: ast.AST, line: int, path: str) -> InputError:
    shown = " ".join(ast.unparse(code).split())[:60]
    return InputError(
        f"{path}:{line}: `{shown}` does not say which key of params.yaml it reads: write "
        'params["key"], and give what is not params.yaml another name than params'
    )
