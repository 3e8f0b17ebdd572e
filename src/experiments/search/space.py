"""The space of a random search, recipes/search.yaml, and the values that a trial draws from it.

A line for each key of params.yaml: `{log_uniform: [low, high]}`, `{uniform: [low, high]}`,
`{integer: [low, high]}` (both included) or `{choice: [a, b, ...]}`, with `if: {key: value}` for a
condition. A value is a function of (seed, number of the trial, key) alone, not of other keys.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.plumbing import identity, overrides, params
from src.plumbing.errors import InputError
from src.plumbing.keys import Value
from src.plumbing.schema import SCHEMA

FILE = Path("recipes/search.yaml")
KINDS = ("log_uniform", "uniform", "integer", "choice")
DIGITS = 3  # that count, of a drawn number: a command line that can be read (choice)
TRIES = 1000  # draws without a new combination, after which there is none (choice)


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
        is_log = self.kind == "log_uniform"
        number = low * (high / low) ** share if is_log else low + share * (high - low)
        text = f"{number:.{DIGITS}g}"
        return text if low <= float(text) <= high else repr(number)  # 0.9997 is not 1


def read(file: Path = FILE) -> list[Dimension]:
    """The dimensions of a space. InputError, in a line, for the first mistake in it."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{file} is missing: it names the params to search; see src/search.py"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    content = overrides.keys_in(text, file)
    with overrides.mistakes_in(file):
        return [_dimension(key, item, content) for key, item in content.items()]


def _dimension(key: str, item: Any, content: Mapping[str, Any]) -> Dimension:
    """The dimension of a line of the file; InputError, without the file's name."""
    if key == "seed":
        raise InputError("seed is no dimension: `python -m src.seeds` shows what it changes")
    if key.startswith(params.UNDECLARED):
        raise InputError(f"{key} is no dimension: it changes no result")
    if key.startswith("prepare."):
        raise InputError(f"{key} is no dimension: results on other data cannot be ranked")
    if not isinstance(item, dict):
        raise InputError(f"{key} must be {{one of {', '.join(KINDS)}: [values]}}")
    kinds = [name for name in item if name != "if"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        hint = params.did_you_mean(kinds[0], KINDS) if kinds else ""
        raise InputError(f"{key} must have exactly one of {', '.join(KINDS)}{hint}")
    kind, values = kinds[0], item[kinds[0]]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{key}: {kind} must be a list of single values, not of lists")
    for value in values:
        params.parse(key, value)
    if kind != "choice":
        _require_range(key, kind, values)
    elif len(set(map(_meaning, values))) < len(values) or not values:
        raise InputError(f"{key}: choice must list different values")
    condition = item.get("if", {})
    if not isinstance(condition, dict):
        raise InputError(f"{key}: if must be {{key: value}}")
    for other, value in condition.items():
        overrides.require_key(other, key)
        params.parse(other, str(value))
        _require_reachable(key, other, value, content.get(other))
    return Dimension(key, kind, tuple(values), tuple(condition.items()))


def _meaning(value: Any) -> str:
    """The same text for every spelling of a value."""
    return str(identity.canonical(value))


def _require_reachable(key: str, other: str, value: Any, varied: Any) -> None:
    """InputError for a condition on `other`, drawn as `varied` says, that cannot hold."""
    if not isinstance(varied, dict):  # not varied, or refused itself
        return
    if "if" in varied:
        raise InputError(f"{key}: {other} has a condition itself: name that one")
    choices = varied.get("choice")
    if isinstance(choices, list) and _meaning(value) not in map(_meaning, choices):
        raise InputError(f"{key}: {other} is never {value}: add it to its choice")


def _require_range(key: str, kind: str, values: list[str]) -> None:
    try:
        low, high = map(float, values)
    except ValueError:
        raise InputError(f"{key}: {kind} must be [low, high]") from None
    if not low < high or (kind == "log_uniform" and low <= 0):
        above = " > 0" if kind == "log_uniform" else ""
        raise InputError(f"{key}: {kind} must be [low{above}, high] with low < high")
    if kind == "integer":
        if not (low.is_integer() and high.is_integer()):
            raise InputError(f"{key}: integer must be [low, high] of whole numbers")
    # A key that takes whole numbers alone refuses what lies between two of them.
    elif SCHEMA[key].parse(repr(low + (high - low) / math.pi)) is None:
        raise InputError(f"{key} must be {SCHEMA[key].expects}: take integer, not {kind}")


def draw(
    space: list[Dimension], seed: int, number: int, fixed: Mapping[str, Value]
) -> dict[str, str]:
    """What the draw `number` of a search with this seed gives, as texts; `fixed` are the params of
    the configuration, for conditions on keys that are no dimension."""
    drawn = {item.key: item.at(_share(seed, number, item.key)) for item in space}
    known = identity.canonical({**fixed, **drawn})

    def counts(item: Dimension) -> bool:
        return all(known[key] == identity.canonical(value) for key, value in item.condition)

    return {item.key: drawn[item.key] for item in space if counts(item)}


def trials(
    space: list[Dimension], seed: int, count: int, fixed: Mapping[str, Value]
) -> list[dict[str, str]]:
    """The first `count` different draws. InputError if the space has not so many."""
    found: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    number = last = 0
    while len(found) < count:
        if number - last > TRIES:
            raise InputError(
                f"{FILE} has only {len(found)} different combinations, {count} are wanted: "
                "a grid is `dvc exp run --queue -S 'lr=1e-3,3e-3' -S 'optimizer=adamw,sgd'`"
            )
        values = draw(space, seed, number, fixed)
        number += 1
        if (combination := tuple(values.items())) not in found:
            found[combination], last = values, number
    return list(found.values())


def _share(seed: int, number: int, key: str) -> float:
    """A number in [0, 1): uniform, and independent for each seed, draw and key."""
    digest = hashlib.sha256(f"{seed}:{number}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
