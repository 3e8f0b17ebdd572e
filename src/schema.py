"""What each key of params.yaml accepts. docs/params.md says where each default comes from."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

INTEGER = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
NONE = "none"  # how params.yaml spells that something is absent

Single = str | int | float | bool
Value = Single | list[float]


@dataclass(frozen=True)
class Key:
    """What a key accepts: `expects` ends the sentence "<key> must be ...", `parse` returns the
    value for a text or None when the text is not acceptable. `choices`: all values, if they can be
    listed. `many`: whether a list of such values is accepted too."""

    expects: str
    parse: Callable[[str], Single | None]
    choices: tuple[str, ...] = ()
    many: bool = False


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
    expects = "one of " + ", ".join(choices)
    return Key(expects, lambda text: text if text in choices else None, choices)


def _text(expects: str, pattern: str = r".+") -> Key:
    return Key(expects, lambda text: text if re.fullmatch(pattern, text) else None)


def _or_none(key: Key) -> Key:
    return Key(
        f"{NONE} or {key.expects}", lambda text: text if text == NONE else key.parse(text), (NONE,)
    )


_BOOL = Key(
    "true or false", lambda text: {"true": True, "false": False}.get(text), ("true", "false")
)
_POSITIVE = _number("> 0", lambda x: x > 0)
_NOT_NEGATIVE = _number(">= 0", lambda x: x >= 0)
_BETWEEN = _number("between 0 and 1", lambda x: 0 < x < 1)
_BELOW_ONE = _number("in [0, 1)", lambda x: 0 <= x < 1)
_UP_TO_ONE = _number("in (0, 1]", lambda x: 0 < x <= 1)
_SHARE = _number("in [0, 1]", lambda x: 0 <= x <= 1)
# Such a path stands in single quotes on a command line of dvc.yaml.
_PATH = r"[^'\x00-\x1f]+"

SCHEMA: dict[str, Key] = {
    "seed": _integer(0),
    "train_on": _choice("prepared", "subset"),
    "model": _text("the name of a timm model, torchvision:<name>, or own"),
    "weights": _text("the path of a safetensors file without ', or data/weights/none", _PATH),
    "drop_rate": _BELOW_ONE,
    "drop_path": _BELOW_ONE,
    "freeze_epochs": _integer(0),
    "epochs": _integer(1),
    "patience": _or_none(_integer(1)),
    "batch_size": _integer(2),
    "accumulate": _integer(1, 4096),
    "sampling": _choice("random", "balanced"),
    "optimizer": _text("the name of a timm optimizer, such as adamw or sgd"),
    "lr": _POSITIVE,
    "momentum": _BELOW_ONE,
    "weight_decay": _NOT_NEGATIVE,
    "layer_decay": _UP_TO_ONE,
    "clip_grad": _or_none(_POSITIVE),
    "schedule": _choice("constant", "cosine", "step", "plateau"),
    "warmup": _NOT_NEGATIVE,
    "decay_epochs": _integer(1),
    "decay_rate": _BETWEEN,
    "loss": _choice("cross_entropy", "bce", "focal"),
    "label_smoothing": _BELOW_ONE,
    "class_weights": Key(
        "none, balanced, or a list of one number > 0 per class",
        lambda text: text if text in (NONE, "balanced") else None,
        (NONE, "balanced"),
        many=True,
    ),
    "focal_gamma": _NOT_NEGATIVE,
    "mixup": _NOT_NEGATIVE,
    "cutmix": _NOT_NEGATIVE,
    "ema": _or_none(_BETWEEN),
    "augment_crop": _integer(0),
    "augment_scale": _UP_TO_ONE,
    "augment_flip": _BOOL,
    "augment_vertical_flip": _BOOL,
    "augment_rotation": _number("in [0, 180]", lambda x: 0 <= x <= 180),
    "augment_color": _SHARE,
    "augment_erase": _SHARE,
    "best_by": _choice("val/accuracy", "val/macro_f1", "val/loss"),
    "precision": _choice("fp32", "bf16", "fp16"),
    "channels_last": _BOOL,
    "compile": _choice("none", "default", "reduce-overhead"),
    "fused": _BOOL,
    "tf32": _BOOL,
    "deterministic": _choice("true", "warn", "false"),
    "threads": _integer(1, 1024),
    "prepare.source": _text(
        "one of digits, synthetic, folder, csv, torchvision:<Name>",
        r"digits|synthetic|folder|csv|torchvision:\w+",
    ),
    "prepare.path": _text("the path of a file or folder without '", _PATH),
    "prepare.size": _integer(8, 4096),
    "prepare.channels": Key("1 or 3", lambda text: {"1": 1, "3": 3}.get(text), ("1", "3")),
    "prepare.fit": _choice("crop", "pad", "squash"),
    "prepare.crop_ratio": _UP_TO_ONE,
    "prepare.interpolation": _choice("bilinear", "bicubic", "lanczos", "nearest"),
    "prepare.val_share": _BETWEEN,
    "prepare.test_share": _BETWEEN,
    "prepare.split_seed": _integer(0),
    "prepare.on_bad": _choice("fail", "skip"),
    "prepare.on_leak": _choice("fail", "drop"),
    "prepare.csv_file": _text("the path of a CSV file below prepare.path"),
    "prepare.csv_path_column": _text("the name of a column"),
    "prepare.csv_label_column": _text("the name of a column"),
    "prepare.csv_split_column": _text("none or the name of a column"),
    "prepare.csv_group_column": _text("none or the name of a column"),
    "prepare.csv_delimiter": _choice("auto", "comma", "semicolon", "tab", "pipe"),
    "prepare.csv_encoding": _text("auto or the name of an encoding, such as utf-8 or cp1251"),
    "prepare.synthetic_classes": _integer(2, 48),
    "prepare.synthetic_pictures": _integer(1),
    "subset.seed": _integer(0),
    "subset.train_per_class": _integer(1),
    "subset.val_per_class": _integer(1),
    "overfit_check.on_fail": _choice("stop", "report"),
    "overfit_check.strict": _BOOL,
    "overfit_check.waive": _text("none, or 'check: reason; check: reason'"),
    "evaluate.flip": _BOOL,
    "evaluate.refresh_batchnorm": _choice("none", "train", "test"),
    "machine.device": _text("one of auto, cpu, cuda, cuda:N, mps", r"auto|cpu|cuda(:[0-9]+)?|mps"),
    "machine.workers": _integer(0, 256),
    "machine.reading": _choice("auto", "resident", "mapped", "workers"),
    "machine.prepare_workers": Key(
        "auto or an integer in 0..256",
        lambda text: text if text == "auto" else _integer(0, 256).parse(text),
    ),
    "machine.checkpoint_minutes": _POSITIVE,
    "machine.resume": _choice("same", "any"),
    "machine.progress": _choice("auto", "off"),
    "machine.tracking": _BOOL,
    "machine.examples_every": _integer(0),
}
