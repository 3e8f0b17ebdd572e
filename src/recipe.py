"""Recipes: sets of params that go together. `python -m src.recipe` lists them.

`python -m src.recipe NAME [KEY=VALUE ...]` prints the arguments for `dvc exp run $(...)`. A shell
cuts them at spaces; with `--run [ARGUMENTS ...]` this becomes `dvc exp run` itself, with these
arguments after its own. A recipe is recipes/NAME.yaml: comments, then a line for each dotted key.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

from src.plumbing import command, overrides, params
from src.plumbing.errors import InputError
from src.plumbing.overrides import _require_key, arguments, check, merge
from src.plumbing.schema import SCHEMA

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
            overrides.become_dvc_exp_run(words + given.run)
        if odd := [word for word in words if NOT_FOR_A_SHELL.search(word)]:
            raise InputError(f"a shell would change {odd[0]}: add --run in place of `dvc exp run`")
    except InputError:
        if given.run is None and not sys.stdout.isatty():
            print(REFUSED)
        raise
    print(" ".join(words))


if __name__ == "__main__":
    sys.exit(command.guarded(main))
