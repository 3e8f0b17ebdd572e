"""Other values than those of params.yaml, as `dvc exp run -S` takes them."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from src.plumbing import params, workspace
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA

# Texts that the override syntax of `dvc -S` takes as they are; others need quotes.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a tool the option `-S KEY=VALUE` of `dvc exp run`: the list `values`, for `merge`."""
    parser.add_argument(
        "-S",
        action="append",
        default=[],
        dest="values",
        metavar="KEY=VALUE",
        help="another value than in params.yaml",
    )


def require_key(key: str, where: object) -> None:
    """InputError, which says `where` it was found, for what is no key of params.yaml."""
    if key not in SCHEMA:
        raise InputError(f"{where}: unknown key {key}{params.did_you_mean(key, SCHEMA)}")


@contextmanager
def mistakes_in(file: object) -> Iterator[None]:
    """Name `file` instead of params.yaml in an InputError of the block."""
    try:
        yield
    except InputError as error:
        reason = str(error).removeprefix(f"{params.FILE}: ")
        raise InputError(f"{file}: {reason}") from None


class _Loader(yaml.BaseLoader):
    """Keeps the text of each value, and refuses a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise InputError(f"{twice[0]} stands there twice; keep one of them")
        return super().construct_mapping(node, deep)


def keys_in(text: str, file: object) -> dict[str, Any]:
    """What the YAML `text` of a file says for keys of params.yaml; every value stays a text, or a
    list or mapping of texts. InputError, with the file's name, for the first mistake."""
    try:
        with mistakes_in(file):
            content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{file} must hold keys of {params.FILE}")
    for key in content:
        require_key(key, file)
    return content


def merge(values: Mapping[str, str], given: Iterable[str]) -> dict[str, str]:
    """`values` with those of `KEY=VALUE` arguments in their place. InputError for an unknown key;
    `params.load` refuses a wrong value."""
    merged = dict(values)
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"expected KEY=VALUE, got '{argument}'")
        require_key(key, "the command line")
        merged[key] = value
    return merged


def arguments(values: Mapping[str, str]) -> list[str]:
    """`-S KEY=VALUE ...` as `dvc exp run` takes it. InputError for a value that its key refuses."""
    words = []
    for key, value in values.items():
        params.parse_override(key, value)
        words += ["-S", f"{key}={as_override(key, value)}"]
    return words


def as_override(key: str, value: str) -> str:
    """The value in Hydra's grammar, so that DVC takes it for this very text or for a list."""
    if params.is_list(key, value):
        items = params.parse_override(key, value)
        assert isinstance(items, list)
        if isinstance(items[0], str):
            return f"[{','.join(_quoted(str(item)) for item in items)}]"
        return re.sub(r"\s+", "", value)
    return value if PLAIN.fullmatch(value) else _quoted(value)


def _quoted(value: str) -> str:
    # Backslashes mean themselves but before a quote, where each is doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def of_mlflow(words: list[str]) -> dict[str, str]:
    """The values that `mlflow run -P key=value ...` hands on as `--key value ...`, by key."""
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise InputError(f"MLproject: expected --key value ..., got '{' '.join(words)}'")
    given = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)}
    for key in given:
        require_key(key, "MLproject")
    return given


def become_dvc_exp_run(words: list[str]) -> None:
    """Become `dvc exp run` with these arguments, so that signals and the exit code are its own."""
    os.environ["PATH"] = workspace.search_path()
    try:
        os.execvp("dvc", ["dvc", "exp", "run", *words])
    except FileNotFoundError:
        here = os.path.dirname(sys.executable)
        raise InputError(f"dvc is neither in {here} nor on PATH: run `make setup`") from None
