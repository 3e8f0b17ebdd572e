"""Recipes: sets of params that go together. `python -m src.recipe` lists them.

`python -m src.recipe NAME [KEY=VALUE ...]` prints the arguments for `dvc exp run $(...)`. A shell
cuts them at spaces; with `--run [ARGUMENTS ...]` this becomes `dvc exp run` itself, with these
arguments after its own. A recipe is recipes/NAME.yaml: comments, then a line for each dotted key.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from src.plumbing import command, overrides, params
from src.plumbing.errors import InputError
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
    """The params that a recipe sets, as texts; lists as `[1,2]`. InputError for a name that is no
    recipe, an unknown or double key, or a value that its key does not accept."""
    path = FOLDER / f"{name}.yaml"
    found = overrides.keys_in(_text(name), path)
    with overrides.mistakes_in(path):
        return {key: _value(key, value) for key, value in found.items()}


def _text(name: str) -> str:
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        hint = params.did_you_mean(name, names()) or f"; there are {', '.join(names()) or 'none'}"
        raise InputError(f"there is no recipe {name} in {FOLDER}/{hint}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _value(key: str, value: Any) -> str:
    if isinstance(value, list) and SCHEMA[key].many:
        return params.list_text(key, map(str, value))
    if not isinstance(value, str):
        raise InputError(f"{key} must be {SCHEMA[key].expects}")
    params.parse(key, value)
    return value


def main() -> None:
    """The command line."""
    about = "Arguments for `dvc exp run` that set the params of a recipe."
    parser = command.parser("recipe", about)
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
        values = overrides.merge(read(given.name), given.values)
        params.load(overrides=values)  # a stage of the experiment would refuse them only later
        words = overrides.arguments(values)
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
