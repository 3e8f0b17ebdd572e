"""What each key of params.yaml accepts, its type and range; its comment there says what it is."""

import re

from src.base.kinds import KINDS
from src.plumbing.keys import NONE, Key, choice, integer, number, or_names, or_word, text
from src.plumbing.own_code import leave_if_broken

try:
    from src.yours import params as yours
except Exception as error:
    leave_if_broken(error)
    raise

_BOOL = Key("true or false", {"true": True, "false": False}.get, ("true", "false"))
_POSITIVE = number("> 0", lambda x: x > 0)
_NOT_NEGATIVE = number(">= 0", lambda x: x >= 0)
_BETWEEN = number("between 0 and 1", lambda x: 0 < x < 1)
_BELOW_ONE = number("in [0, 1)", lambda x: 0 <= x < 1)
_UP_TO_ONE = number("in (0, 1]", lambda x: 0 < x <= 1)
_SHARE = number("in [0, 1]", lambda x: 0 <= x <= 1)
# Such a path stands in single quotes on a command line of dvc.yaml, and DVC takes a ~ for a name.
_PATH = r"(?!~)[^'\x00-\x1f]+"
_RULES = ", with no ' in it and no ~ in front"
_LARGEST_WEIGHT = 1e6  # the sum over all samples must stay a number
_NONE = text(NONE, NONE)

# Of every kind of sample.
_SOURCES = [source for sources in KINDS.values() for source in sources]

YOURS = "yours"  # the section of your own keys

SCHEMA: dict[str, Key] = {
    "seed": integer(0),
    "train_on": choice("prepared", "subset"),
    "model": text("the name of a timm model, torchvision:<name>, or own"),
    "weights": text(f"data/weights/none or the path of a safetensors file{_RULES}", _PATH),
    "drop_rate": _BELOW_ONE,
    "drop_path": _BELOW_ONE,
    "freeze_epochs": integer(0),
    "epochs": integer(1),
    "patience": or_word(NONE, integer(1)),
    "batch_size": integer(2),
    "accumulate": integer(1, 4096),
    "sampling": choice("random", "balanced"),
    "optimizer": text("the name of a timm optimizer, such as adamw or sgd"),
    "lr": _POSITIVE,
    "momentum": _BELOW_ONE,
    "weight_decay": _NOT_NEGATIVE,
    "layer_decay": _UP_TO_ONE,
    "clip_grad": or_word(NONE, _POSITIVE),
    "schedule": choice("constant", "cosine", "step", "plateau"),
    "warmup": _NOT_NEGATIVE,
    "decay_epochs": integer(1),
    "decay_rate": _BETWEEN,
    "loss": choice("cross_entropy", "bce", "focal", "own"),
    "label_smoothing": _BELOW_ONE,
    "class_weights": Key(
        "none, balanced, or a list of one number > 0 per class",
        lambda given: given if given in (NONE, "balanced") else None,
        (NONE, "balanced"),
        item=number("> 0", lambda x: 0 < x <= _LARGEST_WEIGHT).parse,
    ),
    "focal_gamma": _NOT_NEGATIVE,
    "mixup": _NOT_NEGATIVE,
    "cutmix": _NOT_NEGATIVE,
    "ema": or_word(NONE, _BETWEEN),
    "augment_crop": integer(0),
    "augment_scale": _UP_TO_ONE,
    "augment_flip": _BOOL,
    "augment_vertical_flip": _BOOL,
    "augment_rotation": number("in [0, 180]", lambda x: 0 <= x <= 180),
    "augment_color": _SHARE,
    "augment_erase": _SHARE,
    "augment_own": _BOOL,
    "best_by": Key(
        "val/accuracy, val/macro_f1, val/loss, or val/<name> of src/yours/metrics.py",
        lambda given: given if re.fullmatch(r"val/\w+", given) else None,
        ("val/accuracy", "val/macro_f1", "val/loss"),
    ),
    "precision": choice("fp32", "bf16", "fp16"),
    "channels_last": _BOOL,
    "compile": choice("none", "default", "reduce-overhead"),
    "fused": _BOOL,
    "tf32": _BOOL,
    "deterministic": choice("true", "warn", "false"),
    "threads": integer(1, 1024),
    "prepare.source": text(
        f"one of {', '.join(_SOURCES)}", "|".join(_SOURCES).replace("<Name>", r"\w+")
    ),
    "prepare.path": text(f"the path of a file or folder{_RULES}", _PATH),
    "prepare.size": integer(8, 4096),
    "prepare.channels": Key("1 or 3", {"1": 1, "3": 3}.get, ("1", "3")),
    "prepare.fit": choice("crop", "pad", "squash"),
    "prepare.crop_ratio": _UP_TO_ONE,
    "prepare.interpolation": choice("bilinear", "bicubic", "lanczos", "nearest"),
    "prepare.value_range": or_word("auto", _POSITIVE),
    "prepare.val_share": _BETWEEN,
    "prepare.test_share": _BETWEEN,
    "prepare.split_by": choice("content", "path"),
    "prepare.split_seed": integer(0),
    "prepare.on_bad": choice("fail", "skip"),
    "prepare.on_leak": choice("fail", "drop"),
    "prepare.leave_out": or_names(_NONE, "a list of names of classes"),
    "prepare.merge": or_names(_NONE, "a list of 'class=new name'"),
    "prepare.csv_file": text("the path of a CSV file below prepare.path"),
    "prepare.csv_path_column": text("the name of a column"),
    "prepare.csv_path_pattern": text(
        "none or a path with exactly one * in it (and .* in place of an ending; {name} is what "
        "column name says)",
        rf"{NONE}|[^*]*\*[^*]*(\.\*)?",
    ),
    "prepare.csv_label_column": or_names(text("the name of a column"), "a list of such names"),
    "prepare.csv_split_column": text("none or the name of a column"),
    "prepare.csv_group_column": text("none or the name of a column"),
    "prepare.csv_delimiter": choice("auto", "comma", "semicolon", "tab", "pipe"),
    "prepare.csv_encoding": text("auto or the name of an encoding, such as utf-8 or cp1251"),
    "prepare.synthetic_classes": integer(2, 48),
    "prepare.synthetic_pictures": integer(1),
    "subset.seed": integer(0),
    "subset.train_per_class": integer(1),
    "subset.val_per_class": integer(1),
    "overfit_check.on_fail": choice("stop", "report"),
    "overfit_check.strict": _BOOL,
    "overfit_check.waive": text("none, or 'check: reason; check: reason'"),
    "evaluate.flip": _BOOL,
    "evaluate.refresh_batchnorm": choice("none", "train", "test"),
    "machine.device": text("one of auto, cpu, cuda, cuda:N, mps", r"auto|cpu|cuda(:[0-9]+)?|mps"),
    "machine.workers": integer(0, 256),
    "machine.reading": choice("auto", "resident", "mapped", "workers"),
    "machine.prepare_workers": or_word("auto", integer(0, 256)),
    "machine.cuda_graph": choice("auto", "off"),
    "machine.checkpoint_minutes": _POSITIVE,
    "machine.resume": choice("same", "any"),
    "machine.progress": choice("auto", "off"),
    "machine.tracking": _BOOL,
    "machine.examples_every": integer(0),
    **{f"{YOURS}.{name}": key for name, key in yours.KEYS.items()},
}
