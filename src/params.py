"""The only reader of params.yaml: typed, ranged, one clear line per mistake.

Values are parsed from their text by the type that the schema gives, not by YAML's guesses
(PyYAML reads `1e-05` as a string, `010` as 8 and `off` as False; DVC reads YAML 1.2), so that the
value the code uses is the value that DVC hashes. There are no defaults: every key must be there.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from src.errors import InputError

FILE = "params.yaml"
# Higher ones overflow in the optimizer's arithmetic, or in a retry at a thousand times the rate.
LARGEST = {"lr": 1000.0, "weight_decay": 1000.0}
# Section `machine` cannot change a result: any stage may read it, none declares it.
UNDECLARED = "machine."

INTEGER = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
# Plain texts that YAML 1.2, and so DVC, reads as something other than a string.
NOT_A_STRING = re.compile(
    r"|~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?\.(inf|nan)", re.I
)

Value = str | int | float | bool


@dataclass(frozen=True)
class Key:
    """What a key accepts: `expects` ends the sentence "<key> must be ...", `parse` returns the
    value for a text or None when the text is not acceptable."""

    expects: str
    parse: Callable[[str], Value | None]


def _integer(low: int, high: int | None = None) -> Key:
    def parse(text: str) -> int | None:
        if not INTEGER.fullmatch(text) or len(text) > 18:
            return None
        value = int(text)
        return value if value >= low and (high is None or value <= high) else None

    return Key(f"an integer >= {low}" if high is None else f"an integer in {low}..{high}", parse)


def _number(expects: str, accept: Callable[[float], bool]) -> Key:
    def parse(text: str) -> float | None:
        if not NUMBER.fullmatch(text):
            return None
        value = float(text)
        return value if math.isfinite(value) and accept(value) else None

    return Key(f"a number {expects}", parse)


def _choice(*choices: str) -> Key:
    return Key("one of " + ", ".join(choices), lambda text: text if text in choices else None)


def _text(expects: str, pattern: str = r".+") -> Key:
    return Key(expects, lambda text: text if re.fullmatch(pattern, text) else None)


# Such a path stands in single quotes on a command line of dvc.yaml.
_PATH = r"[^'\x00-\x1f]+"
_BOOL = Key("true or false", lambda text: {"true": True, "false": False}.get(text))
_POSITIVE = _number("> 0", lambda x: x > 0)
_NOT_NEGATIVE = _number(">= 0", lambda x: x >= 0)
_SHARE = _number("between 0 and 1", lambda x: 0 < x < 1)

SCHEMA: dict[str, Key] = {
    "seed": _integer(0),
    "train_on": _choice("prepared", "subset"),
    "model": _text("the name of a timm model"),
    "weights": _text("the path of a safetensors file without ', or data/weights/none", _PATH),
    "epochs": _integer(1),
    "batch_size": _integer(2),
    "optimizer": _choice("adamw", "sgd"),
    "lr": _POSITIVE,
    "momentum": _number("in [0, 1)", lambda x: 0 <= x < 1),
    "weight_decay": _NOT_NEGATIVE,
    "schedule": _choice("constant", "cosine"),
    "warmup": _NOT_NEGATIVE,
    "augment_crop": _integer(0),
    "augment_flip": _BOOL,
    "best_by": _choice("val/accuracy", "val/loss"),
    "threads": _integer(1, 1024),
    "prepare.source": _choice("digits", "synthetic", "folder"),
    "prepare.path": _text("the path of a file or folder without '", _PATH),
    "prepare.size": _integer(8, 4096),
    "prepare.channels": Key("1 or 3", lambda text: {"1": 1, "3": 3}.get(text)),
    "prepare.fit": _choice("crop", "pad", "squash"),
    "prepare.val_share": _SHARE,
    "prepare.test_share": _SHARE,
    "prepare.split_seed": _integer(0),
    "prepare.synthetic_classes": _integer(2, 48),
    "prepare.synthetic_pictures": _integer(1),
    "subset.seed": _integer(0),
    "subset.train_per_class": _integer(1),
    "subset.val_per_class": _integer(1),
    "overfit_check.on_fail": _choice("stop", "report"),
    "overfit_check.strict": _BOOL,
    "machine.device": _text("one of auto, cpu, cuda, cuda:N, mps", r"auto|cpu|cuda(:[0-9]+)?|mps"),
    "machine.workers": _integer(0, 256),
    "machine.checkpoint_minutes": _POSITIVE,
    "machine.progress": _choice("auto", "off"),
    "machine.tracking": _BOOL,
}


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


def did_you_mean(wrong: str, known: object) -> str:
    """`, did you mean X?` when a known name is close to the wrong one, else nothing."""
    close = difflib.get_close_matches(wrong, list(known), n=1)  # type: ignore[call-overload]
    return f", did you mean {close[0]}?" if close else ""


def parse(name: str, text: str) -> Value:
    """The value of key `name` written as `text`; InputError when the key does not accept it."""
    value = SCHEMA[name].parse(text)
    if value is None:
        shown = f"'{text}'" if text else "nothing"
        raise InputError(f"{FILE}: {name} must be {SCHEMA[name].expects}, got {shown}")
    return value


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
    if not isinstance(node, yaml.ScalarNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a group of keys"
        raise InputError(f"{FILE}: {name} must be {SCHEMA[name].expects}, got {kind}")
    value = parse(name, node.value)
    plain = node.style is None
    if plain and isinstance(value, str) and _is_not_a_string(value):
        raise InputError(f"{FILE}: {name} must be {SCHEMA[name].expects}, got {value}; quote it")
    return value


def _is_not_a_string(text: str) -> bool:
    return bool(NOT_A_STRING.fullmatch(text) or NUMBER.fullmatch(text))


def _check_limits(values: dict[str, Value]) -> None:
    """Rules beyond the single key's type and range, whose lines name the limit."""
    for name, largest in LARGEST.items():
        if float(values[name]) > largest:
            raise InputError(f"{FILE}: {name} must be at most {largest:g}, got {values[name]:g}")
    if float(values["warmup"]) >= float(values["epochs"]):
        raise InputError(
            f"{FILE}: warmup must be shorter than the {values['epochs']} epochs, "
            f"got {values['warmup']:g}"
        )
    shares = float(values["prepare.val_share"]) + float(values["prepare.test_share"])
    if shares >= 1:
        raise InputError(
            f"{FILE}: prepare.val_share + prepare.test_share must leave pictures to train on, "
            f"got {shares:g}"
        )
