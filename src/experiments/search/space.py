"""The space of a random search, recipes/search.yaml, and the values that a trial draws from it.

A line for each key of params.yaml: `{log_uniform: [low, high]}`, `{uniform: [low, high]}`,
`{integer: [low, high]}` (both included) or `{choice: [a, b, ...]}`, and for a key that only counts
under a condition `if: {other_key: value}`. What a trial draws for a key is a function of (seed,
number of the trial, key) alone: more trials or another key change none of it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.base.keys import Value
from src.plumbing import identity, params
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA

FILE = Path("recipes/search.yaml")
KINDS = ("log_uniform", "uniform", "integer", "choice")
DIGITS = 3  # that count, of a drawn number: a command line that can be read (choice)
TRIES = 1000  # draws without a new combination, after which there is none (choice)


class _Loader(yaml.BaseLoader):
    """Keeps the text of each value, and refuses a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise yaml.YAMLError(f"{twice[0]} stands there twice; keep one of them")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Dimension:
    """A key with the kind of its distribution, low and high or the choices as texts, and the values
    of other keys under which it counts."""

    key: str
    kind: str
    values: tuple[str, ...]
    condition: tuple[tuple[str, str], ...] = ()

    def at(self, share: float) -> str:
        """The value, as text, below which the distribution has `share` in [0, 1)."""
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = map(float, self.values)
        if self.kind == "integer":
            return str(int(low) + int(share * (int(high) - int(low) + 1)))
        number = low * (high / low) ** share if self.kind == "log_uniform" else (
            low + share * (high - low)
        )  # fmt: skip
        text = f"{number:.{DIGITS}g}"
        return text if low <= float(text) <= high else repr(number)  # 0.9997 is not 1


def read(file: Path = FILE) -> list[Dimension]:
    """The dimensions of a space. InputError, in a line, for the first mistake in it."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise InputError(
            f"{file} is missing: it names the params to search; see src/search.py"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{file} must hold keys of params.yaml and their distributions")
    return [_dimension(str(key), item, content, str(file)) for key, item in content.items()]


def _dimension(key: str, item: Any, content: Mapping[str, Any], file: str) -> Dimension:
    _require_key(key, file)
    if key == "seed":
        raise InputError(f"{file}: seed is no dimension: `python -m src.seeds` tells its noise")
    if key.startswith("machine."):
        raise InputError(f"{file}: {key} is no dimension: it changes no result")
    if key.startswith("prepare."):
        raise InputError(f"{file}: {key} is no dimension: results on other data cannot be ranked")
    if not isinstance(item, dict):
        raise InputError(f"{file}: {key} must be {{one of {', '.join(KINDS)}: [values]}}")
    kinds = [name for name in item if name != "if"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        hint = params.did_you_mean(kinds[0], KINDS) if kinds else ""
        raise InputError(f"{file}: {key} must have exactly one of {', '.join(KINDS)}{hint}")
    kind, values = kinds[0], item[kinds[0]]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{file}: {key}: {kind} must be a list of single values, not of lists")
    for value in values:
        _require_value(key, value, file)
    if kind == "choice":
        meant = {str(identity.canonical(value)) for value in values}
        if len(meant) < len(values) or not values:
            raise InputError(f"{file}: {key}: choice must list different values")
    else:
        _check_range(key, kind, values, file)
    condition = item.get("if", {})
    if not isinstance(condition, dict):
        raise InputError(f"{file}: {key}: if must be {{key: value}}")
    for other, value in condition.items():
        _require_key(other, file)
        _require_value(other, value, file)
        _require_reachable(key, other, value, content.get(other), file)
    return Dimension(key, kind, tuple(values), tuple(condition.items()))


def _require_reachable(key: str, other: str, value: Any, varied: Any, file: str) -> None:
    """InputError for a condition on `other`, drawn as `varied` says, that cannot hold."""
    if not isinstance(varied, dict):  # not varied, or refused itself
        return
    if "if" in varied:
        raise InputError(f"{file}: {key}: {other} has a condition itself: name that one")
    choices = varied.get("choice")
    if isinstance(choices, list) and str(identity.canonical(value)) not in {
        str(identity.canonical(item)) for item in choices
    }:
        raise InputError(f"{file}: {key}: {other} is never {value}: add it to its choice")


def _check_range(key: str, kind: str, values: list[str], file: str) -> None:
    try:
        low, high = map(float, values)
    except ValueError:
        raise InputError(f"{file}: {key}: {kind} must be [low, high]") from None
    if not low < high or (kind == "log_uniform" and low <= 0):
        above = " > 0" if kind == "log_uniform" else ""
        raise InputError(f"{file}: {key}: {kind} must be [low{above}, high] with low < high")
    if kind == "integer" and not (low.is_integer() and high.is_integer()):
        raise InputError(f"{file}: {key}: integer must be [low, high] of whole numbers")
    if kind != "integer" and _takes_integers_alone(key, values):
        raise InputError(f"{file}: {key} must be {SCHEMA[key].expects}: take integer, not {kind}")


def _takes_integers_alone(key: str, values: list[str]) -> bool:
    """Whether a key that accepts the whole numbers `values` refuses what lies between them."""
    low, high = map(float, values)
    return SCHEMA[key].parse(repr(low + (high - low) / math.pi)) is None


def _require_key(key: str, file: str) -> None:
    if key not in SCHEMA:
        raise InputError(f"{file}: unknown key {key}{params.did_you_mean(key, SCHEMA)}")


def _require_value(key: str, value: Any, file: str) -> None:
    try:
        params.parse(key, str(value))
    except InputError as error:
        raise InputError(str(error).replace(params.FILE, file, 1)) from None


def draw(
    space: list[Dimension], seed: int, number: int, fixed: Mapping[str, Value]
) -> dict[str, str]:
    """What the draw `number` of a search with this seed gives, as texts; `fixed` are the params of
    the configuration, for conditions on keys that are no dimension."""
    drawn = {item.key: item.at(_share(seed, number, item.key)) for item in space}
    known = {**fixed, **drawn}

    def counts(item: Dimension) -> bool:
        return all(
            identity.canonical(known[key]) == identity.canonical(value)
            for key, value in item.condition
        )

    return {item.key: drawn[item.key] for item in space if counts(item)}


def trials(
    space: list[Dimension], seed: int, count: int, fixed: Mapping[str, Value]
) -> list[dict[str, str]]:
    """The first `count` different draws. InputError if the space has not so many."""
    found: list[dict[str, str]] = []
    for values in _draws(space, seed, fixed):
        if len(found) == count:
            break
        if values is None:
            raise InputError(
                f"{FILE} has only {len(found)} different combinations, {count} are wanted: "
                "a grid is `dvc exp run --queue -S 'lr=1e-3,3e-3' -S 'optimizer=adamw,sgd'`"
            )
        found.append(values)
    return found


def _draws(
    space: list[Dimension], seed: int, fixed: Mapping[str, Value]
) -> Iterator[dict[str, str] | None]:
    """New combinations in their order; None when there seem to be no more."""
    seen: set[tuple[tuple[str, str], ...]] = set()
    number, last = 0, 0
    while number - last <= TRIES:
        values = draw(space, seed, number, fixed)
        number += 1
        if (identity := tuple(values.items())) not in seen:
            seen.add(identity)
            last = number
            yield values
    yield None


def _share(seed: int, number: int, key: str) -> float:
    """A number in [0, 1): uniform, and independent for each seed, draw and key."""
    digest = hashlib.sha256(f"{seed}:{number}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
