"""Other values than those of params.yaml, as `dvc exp run -S` takes them."""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from src.base.keys import Value
from src.plumbing import params, schema
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA

# Texts that the override syntax of `dvc -S` takes as they are; others need quotes.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def key_of(name: str) -> str:
    """The key of params.yaml that a parameter of MLproject stands for."""
    return name.replace("__", ".")


def accepted(arguments: list[str]) -> list[str]:
    """The `key=value` that `dvc exp run -S` gets for `key=value` and `--key value` arguments,
    without the empty ones. InputError for an unknown key or a value that its key refuses."""
    given: dict[str, str] = {}
    for name, value in _pairs(arguments):
        key = key_of(name)
        if key not in schema.SCHEMA:
            hint = params.did_you_mean(key, schema.SCHEMA)
            raise InputError(f"MLproject: unknown parameter {name}{hint}")
        if not value:
            continue
        if given.setdefault(key, value) != value:
            raise InputError(f"MLproject: {key} is given twice, as {given[key]} and {value}")
        params.parse_override(key, value)
    return [f"{key}={as_override(key, value)}" for key, value in given.items()]


def _pairs(arguments: list[str]) -> Iterator[tuple[str, str]]:
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            yield argument[2:], next(rest, "")
        elif equals:
            yield name, value
        else:
            raise InputError(f"MLproject: expected key=value or --key value, got '{argument}'")


def as_override(key: str, value: str) -> str:
    """The value such that DVC, which parses it by Hydra's grammar, takes it for this very text, or
    for a list."""
    if params.is_list(key, value):
        return re.sub(r"\s+", "", value)
    if PLAIN.fullmatch(value):
        return value
    # Backslashes mean themselves but before a quote, where each is doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def become_dvc_exp_run(words: list[str]) -> None:
    """Become `dvc exp run` with these arguments, so that signals and the exit code are its own."""
    # The stages call `python` and `dvc` by name: let them find those of this environment.
    here = os.path.dirname(sys.executable)
    os.environ["PATH"] = here + os.pathsep + os.environ.get("PATH", os.defpath)
    try:
        os.execvp("dvc", ["dvc", "exp", "run", *words])
    except FileNotFoundError:
        raise InputError(f"dvc is neither in {here} nor on PATH: run `make setup`") from None


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
    given = accepted([f"{key}={value}" for key, value in values.items()])
    return [word for override in given for word in ("-S", override)]


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
