"""Recipes: sets of params that go together. `python -m src.recipe` lists them.

`python -m src.recipe NAME [KEY=VALUE ...]` prints the arguments for `dvc exp run $(...)`. A shell
cuts them at spaces; with `--run [ARGUMENTS ...]` this becomes `dvc exp run` itself, with these
arguments after its own. A recipe is recipes/NAME.yaml: comments, then a line for each dotted key.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from src import mlproject, params, stage
from src.errors import InputError
from src.schema import SCHEMA, Value

FOLDER = Path("recipes")
SPACE = "search"  # recipes/search.yaml is no recipe: it is the space of src.search
# What a shell changes in the output of $(...): it cuts at spaces and fills in file names.
NOT_FOR_A_SHELL = re.compile(r"[\s*?]")
# What `dvc exp run $(...)` gets if a recipe is refused: with nothing it would run all the same.
REFUSED = "the-recipe-was-refused"


def names() -> list[str]:
    """The recipes of this project, in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != SPACE)


def title(name: str) -> str:
    """The first line of a recipe's header, or why there is none to read."""
    try:
        return _text(name).partition("\n")[0].removeprefix("#").strip()
    except InputError as error:
        return str(error)


def read(name: str) -> dict[str, str]:
    """The params that a recipe sets, as the texts of their values; lists as `[1,2]`.

    InputError for a name that is no recipe, for a key that params.yaml does not have, a double one,
    or a value that its key does not accept.
    """
    path = FOLDER / f"{name}.yaml"
    try:
        root = yaml.compose(_text(name), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} must hold keys of params.yaml and their values")
    values: dict[str, str] = {}
    for key_node, node in root.value:
        key = str(key_node.value)
        if key in values:
            raise InputError(f"{path}: {key} stands there twice; keep one of them")
        values[key] = _value(key, node, str(path))
    return values


def take_values(parser: argparse.ArgumentParser) -> None:
    """Let a tool take `-S KEY=VALUE ...`, as `dvc exp run` does, for `merge`: the list `values`."""
    parser.add_argument(
        "-S", action="append", default=[], dest="values", metavar="KEY=VALUE",
        help="another value than in params.yaml",
    )  # fmt: skip


def merge(values: Mapping[str, str], given: list[str]) -> dict[str, str]:
    """`values` with those that `KEY=VALUE` arguments give instead."""
    merged = dict(values)
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"expected KEY=VALUE, got '{argument}'")
        _require_key(key, "the command line")
        merged[key] = value
    return merged


def check(values: Mapping[str, str]) -> dict[str, Value]:
    """Every key of params.yaml with these values in it. InputError when they would not be accepted:
    a stage of the experiment would say so only later."""
    params.load()  # a mistake in params.yaml itself is said as such
    root = yaml.compose(Path(params.FILE).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    for key, value in values.items():
        _replace(root, key, _node(key, value))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, params.FILE).write_text(yaml.serialize(root), encoding="utf-8")
        return params.load(folder)


def arguments(values: Mapping[str, str]) -> list[str]:
    """`-S KEY=VALUE ...` for `dvc exp run`, in the syntax of its overrides."""
    given = mlproject.overrides([f"{key}={value}" for key, value in values.items()])
    return [word for override in given for word in ("-S", override)]


def _text(name: str) -> str:
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        hint = params.did_you_mean(name, names()) or f"; there are {', '.join(names()) or 'none'}"
        raise InputError(f"there is no recipe {name} in {FOLDER}/{hint}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _value(key: str, node: yaml.Node, where: str) -> str:
    _require_key(key, where)
    if isinstance(node, yaml.SequenceNode) and SCHEMA[key].many:
        return "[" + ",".join(str(item.value) for item in node.value) + "]"
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{where}: {key} must be {SCHEMA[key].expects}")
    try:
        params.parse(key, node.value)
    except InputError as error:
        raise InputError(str(error).replace(params.FILE, where, 1)) from None
    return str(node.value)


def _require_key(key: str, where: str) -> None:
    if key not in SCHEMA:
        raise InputError(f"{where}: unknown key {key}{params.did_you_mean(key, SCHEMA)}")


def _node(key: str, value: str) -> yaml.Node:
    if params.is_list(key, value):
        try:
            node = yaml.compose(value, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            node = None
        if node is None:
            raise InputError(f"{params.FILE}: {key} must be {SCHEMA[key].expects}")
        return node
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, style="'")


def _replace(root: yaml.MappingNode, key: str, node: yaml.Node) -> None:
    section, dot, rest = key.partition(".")
    for number, (name, value) in enumerate(root.value):
        if name.value == section and dot:
            _replace(value, rest, node)
        elif name.value == section:
            root.value[number] = (name, node)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m src.recipe",
        description="Arguments for `dvc exp run` that set the params of a recipe.",
    )
    parser.add_argument("name", nargs="?", help="a recipe; without it, all are listed")
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="instead of the recipe's")
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENT",
        help="run `dvc exp run` with them, and with these arguments",
    )
    given = parser.parse_args()
    if given.name is None:
        width = max(map(len, names()), default=0)
        for name in names():
            print(f"{name:{width}}  {title(name)}")
        return
    try:
        values = merge(read(given.name), given.values)
        check(values)
        words = arguments(values)
        if given.run is not None:
            mlproject.become_dvc_exp_run(words + given.run)
        if odd := [word for word in words if NOT_FOR_A_SHELL.search(word)]:
            raise InputError(f"a shell would change {odd[0]}: add --run in place of `dvc exp run`")
    except InputError:
        if given.run is None and not sys.stdout.isatty():
            print(REFUSED)
        raise
    print(" ".join(words))


if __name__ == "__main__":
    sys.exit(stage.guarded(main))
