"""The only reader of params.yaml: typed, ranged, one clear line per mistake.

Values are parsed from their text by the type that the schema gives, not by YAML's guesses
(PyYAML reads `1e-05` as a string, `010` as 8 and `off` as False; DVC reads YAML 1.2), so that the
value the code uses is the value that DVC hashes. There are no defaults: every key must be there.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from src.base.words import counted
from src.plumbing.errors import InputError
from src.plumbing.keys import NONE, NUMBER, Value
from src.plumbing.schema import SCHEMA, YOURS
from src.plumbing.yaml_loaders import BaseLoader, SafeLoader

FILE = "params.yaml"
# Higher ones overflow in the optimizer's arithmetic, or in a retry at a thousand times the rate.
LARGEST = {"lr": 1000.0, "weight_decay": 1000.0}
# Section `machine` cannot change a result: any stage may read it, none declares it.
UNDECLARED = "machine."

# Plain texts that YAML 1.2, and so DVC, reads as something other than a string.
NOT_A_STRING = re.compile(rf"|~|null|true|false|[-+]?\.(inf|nan)|{NUMBER.pattern}", re.I)


def mark_as_changed() -> None:
    """Move the time of change of params.yaml to the next second. DVC writes an experiment's values
    in the second in which it has looked at the file for git, and git, which compares whole seconds
    and sizes, would take the values of an experiment that failed at once for the committed ones."""
    with suppress(OSError):
        found = os.stat(FILE)
        os.utime(FILE, ns=(found.st_atime_ns, (found.st_mtime_ns // 10**9 + 1) * 10**9))


def load(folder: Path | str = ".", overrides: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Every key of `folder`/params.yaml, sections dotted (`prepare.size`), as typed values, with
    `overrides` (texts, as `dvc exp run -S` takes them) in place of some. InputError, in one line,
    for the first mistake: a missing, unknown or double key, or a value that is not accepted."""
    path = Path(folder) / FILE
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=SafeLoader)
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
    for name, text in (overrides or {}).items():
        values[name] = parse_override(name, text)
    _check_limits(values)
    return values


def load_texts(folder: Path | str) -> dict[str, Value]:
    """Every key of `folder`/params.yaml, sections dotted, as the text that stands there: for the
    file of another commit, whose code may know other keys. InputError if it cannot be read."""
    path = Path(folder) / FILE
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=BaseLoader)
        items = list(content.items())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise InputError(f"{FILE} cannot be read: {' '.join(str(error).split())}") from None
    texts: dict[str, Value] = {}
    for key, value in items:
        if isinstance(value, dict):
            texts.update({f"{key}.{name}": text for name, text in value.items()})
        else:
            texts[key] = value
    return texts


def own_params(values: Mapping[str, Value]) -> dict[str, Value]:
    """Your own keys, with the section: {"yours.<name>": value}."""
    return {key: value for key, value in values.items() if key.startswith(f"{YOURS}.")}


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


def list_text(name: str, items: Iterable[str]) -> str:
    """The list of these texts as `parse_override` reads it, for a key that takes a list."""
    parse = SCHEMA[name].item
    assert parse
    words = (json.dumps(x, ensure_ascii=False) if isinstance(parse(x), str) else x for x in items)
    return f"[{','.join(words)}]"


def parse_override(name: str, text: str) -> Value:
    """As `parse`, for a value on a command line, where a list is written `[1,2]`."""
    if not is_list(name, text):
        return parse(name, text)
    try:
        node = yaml.compose(text, Loader=SafeLoader)
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
    plain = not node.style and not SCHEMA[name].choices
    if plain and isinstance(value, str) and NOT_A_STRING.fullmatch(value):
        raise _wrong(name, f"{value}; quote it")
    return value


def _parse_many(name: str, node: yaml.SequenceNode) -> Value:
    parse, values = SCHEMA[name].item, list[Any]()
    assert parse
    if not node.value:
        raise _wrong(name, "an empty list")
    for item in node.value:
        text = item.value if isinstance(item, yaml.ScalarNode) else ""
        value = parse(text)
        if value is None:
            raise _wrong(name, f"'{text or 'a list'}' in the list")
        if isinstance(value, str) and not item.style and NOT_A_STRING.fullmatch(value):
            raise _wrong(name, f"{value} in the list; quote it")
        values.append(value)
    return values


def _check_limits(v: Mapping[str, Any]) -> None:
    """Rules beyond the type and range of one key."""
    epochs = counted(v["epochs"], "epoch")
    shares = v["prepare.val_share"] + v["prepare.test_share"]
    broken = {
        f"{name} must be at most {largest:g}, got {v[name]:g}": v[name] > largest
        for name, largest in LARGEST.items()
    } | {
        f"warmup must be shorter than the {epochs}, got {v['warmup']:g}": (
            v["warmup"] >= v["epochs"]
        ),
        f"freeze_epochs must be at most the {epochs}, got {v['freeze_epochs']}": (
            v["freeze_epochs"] > v["epochs"]
        ),
        f"augment_crop must be below the {v['prepare.size']} pixels of prepare.size, got "
        f"{v['augment_crop']}": v["augment_crop"] >= v["prepare.size"],
        "prepare.val_share + prepare.test_share must leave samples to train on, got "
        f"{shares:g}": shares >= 1,
        f"prepare.csv_label_column must be one column with prepare.source {v['prepare.source']}": (
            isinstance(v["prepare.csv_label_column"], list)
            and v["prepare.source"] in ("parquet", "webdataset")
        ),
        f"label_smoothing must be 0 with loss {v['loss']}, which has none": (
            v["loss"] in ("focal", "own") and v["label_smoothing"] > 0
        ),
        "class_weights must be none with loss own: weigh the samples in own_loss": (
            v["loss"] == "own" and v["class_weights"] != NONE
        ),
        "class_weights must be none with sampling balanced: each does the same": (
            v["sampling"] == "balanced" and v["class_weights"] != NONE
        ),
        "machine.workers must be at least 1 for machine.reading workers": (
            v["machine.reading"] == "workers" and v["machine.workers"] == 0
        ),
    }
    for rule in (rule for rule, is_broken in broken.items() if is_broken):
        raise InputError(f"{FILE}: {rule}")
