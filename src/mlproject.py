"""What `mlflow run . -P lr=3e-3` does: `dvc exp run -S lr=3e-3`, after a look at the values.

MLflow passes every parameter that MLproject declares, given or not, so the defaults there are
empty and mean "as in params.yaml". It fills them in with str.format, which cannot name a dotted
key: MLproject declares `prepare.size` as `prepare__size`. What it does not declare it appends as
`--prepare.size 28`, so the dotted name works too.
"""

import os
import re
import sys
from collections.abc import Iterator

from src import params, schema, stage
from src.errors import InputError

# Texts that the override syntax of `dvc -S` takes as they are; others need quotes.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def key_of(name: str) -> str:
    """The key of params.yaml that a parameter of MLproject stands for."""
    return name.replace("__", ".")


def overrides(arguments: list[str]) -> list[str]:
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


def main() -> None:
    """The command line of MLproject's entry point `main`."""
    become_dvc_exp_run([word for item in overrides(sys.argv[1:]) for word in ("-S", item)])


if __name__ == "__main__":
    sys.exit(stage.guarded(main))
