"""The only reader of params.yaml: typed, ranged, one clear line per mistake.

Values are parsed from their text by the type that the schema gives, not by YAML's guesses
(PyYAML reads `1e-05` as a string, `010` as 8 and `off` as False; DVC reads YAML 1.2), so that the
value the code uses is the value that DVC hashes. There are no defaults: every key must be there.
"""

import difflib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from src.base.keys import NONE, NUMBER, Value
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA

FILE = "params.yaml"
# Higher ones overflow in the optimizer's arithmetic, or in a retry at a thousand times the rate.
LARGEST = {"lr": 1000.0, "weight_decay": 1000.0}
LARGEST_IN_LIST = 1e6  # their sum over all samples must stay a number
# Section `machine` cannot change a result: any stage may read it, none declares it.
UNDECLARED = "machine."

# Plain texts that YAML 1.2, and so DVC, reads as something other than a string.
NOT_A_STRING = re.compile(
    r"|~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?\.(inf|nan)", re.I
)


def let_git_see() -> None:
    """Move the time of change of params.yaml to the next second. DVC writes an experiment's values
    in the second in which it has looked at the file for git, and git, which compares whole seconds
    and sizes, would take the values of an experiment that failed at once for the committed ones."""
    with suppress(OSError):
        found = os.stat(FILE)
        os.utime(FILE, ns=(found.st_atime_ns, (found.st_mtime_ns // 10**9 + 1) * 10**9))


def load(folder: Path | str = ".") -> dict[str, Value]:
    """Every key of `folder`/params.yaml, sections dotted (`prepare.size`), as typed values.

    Raises InputError, in one line, for the first mistake: a missing, unknown or double key, or a
    value that its key does not accept.
    """
    path = Path(folder) / FILE
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise InputError(f"{FILE} is missing: run this in the folder of the project") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{FILE} cannot be read: {' '.join(str(error).split())}") from None
    found: dict[str, yaml.Node] = {}
    _flatten(root, "", found)
    for name in found:
        if name not in SCHEMA:
            raise InputError(f"{FILE}: unknown key {name}{did_you_mean(name, SCHEMA)}")
    for name in SCHEMA:
        if name not in found:
            raise InputError(f"{FILE}: {name} is missing; it must be {SCHEMA[name].expects}")
    values = {name: _parse(name, found[name]) for name in SCHEMA}
    _check_limits(values)
    return values


def load_texts(folder: Path | str) -> dict[str, Value]:
    """Every key of `folder`/params.yaml, sections dotted, as the text that stands there: for the
    file of another commit, whose code may know other keys. InputError if it cannot be read."""
    path = Path(folder) / FILE
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        items = list(content.items())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise InputError(f"{FILE} cannot be read: {' '.join(str(error).split())}") from None
    texts: dict[str, Value] = {}
    for key, value in items:
        section = {f"{key}.{name}": text for name, text in value.items()} if isinstance(
            value, dict) else {key: value}  # fmt: skip
        texts.update(section)
    return texts


def did_you_mean(wrong: str, known: object) -> str:
    """`, did you mean X?` when a known name is close to the wrong one, else nothing."""
    close = difflib.get_close_matches(wrong, list(known), n=1)  # type: ignore[call-overload]
    return f", did you mean {close[0]}?" if close else ""


def parse(name: str, text: str) -> Value:
    """The value of key `name` written as `text`; InputError when the key does not accept it."""
    value = SCHEMA[name].parse(text)
    if value is None:
        raise _wrong(name, f"'{text}'" if text else "nothing")
    return value


def is_list(name: str, text: str) -> bool:
    """Whether `text` is meant as a list, `[1,2]`, and the key takes one."""
    return SCHEMA[name].many and text.startswith("[")


def parse_override(name: str, text: str) -> Value:
    """As `parse`, for a value on a command line, where a list is written `[1,2]`."""
    if not is_list(name, text):
        return parse(name, text)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode):
        raise _wrong(name, f"'{text}'")
    return _parse_many(name, node)


def _wrong(name: str, got: str) -> InputError:
    return InputError(f"{FILE}: {name} must be {SCHEMA[name].expects}, got {got}")


def _flatten(node: yaml.Node | None, prefix: str, found: dict[str, yaml.Node]) -> None:
    """Collect the nodes of the keys, `section.key` for those in a section."""
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{FILE}: {prefix.rstrip('.') or 'the file'} must hold keys and values")
    for key, value in node.value:
        name = prefix + str(key.value)
        is_section = not prefix and any(known.startswith(name + ".") for known in SCHEMA)
        if name in found or (is_section and any(old.startswith(name + ".") for old in found)):
            raise InputError(f"{FILE}: {name} stands there twice; keep one of them")
        if is_section:
            _flatten(value, name + ".", found)
        else:
            found[name] = value


def _parse(name: str, node: yaml.Node) -> Value:
    if isinstance(node, yaml.SequenceNode) and SCHEMA[name].many:
        return _parse_many(name, node)
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(name, "a list" if isinstance(node, yaml.SequenceNode) else "a group of keys")
    value = parse(name, node.value)
    plain = node.style is None and not SCHEMA[name].choices
    if plain and isinstance(value, str) and _is_not_a_string(value):
        raise _wrong(name, f"{value}; quote it")
    return value


def _parse_many(name: str, node: yaml.SequenceNode) -> list[float]:
    """A list of numbers > 0."""
    numbers = []
    for item in node.value:
        text = item.value if isinstance(item, yaml.ScalarNode) else "a list"
        if not NUMBER.fullmatch(text) or not 0 < float(text) <= LARGEST_IN_LIST:
            raise _wrong(name, f"'{text}' in the list")
        numbers.append(float(text))
    return numbers


def _is_not_a_string(text: str) -> bool:
    return bool(NOT_A_STRING.fullmatch(text) or NUMBER.fullmatch(text))


def _check_limits(values: Mapping[str, Value]) -> None:
    """Rules beyond the single key's type and range."""

    def number(name: str) -> float:
        value = values[name]
        assert isinstance(value, int | float)
        return value

    for name, largest in LARGEST.items():
        if number(name) > largest:
            raise InputError(f"{FILE}: {name} must be at most {largest:g}, got {number(name):g}")
    if number("warmup") >= number("epochs"):
        raise InputError(
            f"{FILE}: warmup must be shorter than the {values['epochs']} epochs, "
            f"got {values['warmup']:g}"
        )
    if number("freeze_epochs") > number("epochs"):
        raise InputError(
            f"{FILE}: freeze_epochs must be at most the {values['epochs']} epochs, "
            f"got {values['freeze_epochs']}"
        )
    if number("augment_crop") >= number("prepare.size"):
        raise InputError(
            f"{FILE}: augment_crop must be below the {values['prepare.size']} pixels of "
            f"prepare.size, got {values['augment_crop']}"
        )
    shares = number("prepare.val_share") + number("prepare.test_share")
    if shares >= 1:
        raise InputError(
            f"{FILE}: prepare.val_share + prepare.test_share must leave pictures to train on, "
            f"got {shares:g}"
        )
    if values["loss"] == "focal" and number("label_smoothing"):
        raise InputError(f"{FILE}: label_smoothing must be 0 with loss focal, which has none")
    if values["sampling"] == "balanced" and values["class_weights"] != NONE:
        raise InputError(
            f"{FILE}: class_weights must be none with sampling balanced: each does the same"
        )
    if values["machine.reading"] == "workers" and not values["machine.workers"]:
        raise InputError(f"{FILE}: machine.workers must be at least 1 for machine.reading workers")
