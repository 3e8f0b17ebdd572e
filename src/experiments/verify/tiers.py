"""Which tier of proof holds between a result and the same run again: bit, numeric or statistical.

Both are given as the texts of files: dvc.lock names every output by its hash, history.csv holds a
row per epoch, metrics.json the result.
"""

import csv
import io
import json
import math
from pathlib import Path

from src.base.words import counted
from src.experiments import statistics, stored
from src.experiments.target import Target
from src.plumbing import dvc_files, identity
from src.plumbing.errors import InputError

LEAST_SEEDS = 3  # whose results say how much a result depends on the seed
# Another instruction set or device adds in another order: losses of the first epoch agree to some
# 1e-4 then, and part later, as training amplifies differences (choice, with room).
FIRST_LOSS = 0.02  # relative difference of the first epoch's training loss
# Numeric agreement allows what two seeds do: so many standard errors of a difference.
STANDARD_ERRORS = 2.0
BOUNDED = ("accuracy", "macro_f1", "log_loss")  # the metrics with an interval
WIDTH = 3.92  # standard errors in the width of a 95 % interval (normal distribution)
OUTSIDE = 0.01  # share of seeds outside the interval that the other seeds give (choice)


def judge(target: Target, folder: Path, same_kind: bool | None) -> tuple[str, list[str]]:
    """Compare the target's files with those made in `folder`: the tier that holds, empty if none,
    and lines that say why and what differs. `same_kind`: of machine, None if not known."""
    before, after = target.locked()[0], (folder / "dvc.lock").read_text()
    found = differing_outputs(before, after)
    if not found:
        return "bit", ["every output is equal"]
    lines = [f"{name}: output {path} differs" for name, path in found]
    history, metrics = (
        (_text(target.read(path)), (folder / path).read_text())
        for path in (stored.HISTORY, identity.METRICS)
    )
    if parting := first_difference(*history):
        lines.append(parting)
    if same_kind:
        return "", [*lines, "the machine is of the same kind, so every bit should be equal"]
    lines.append("another kind of machine, or not known: close numbers are enough")
    trouble = numeric_trouble(history, metrics)
    lines += trouble
    if not trouble:
        return "numeric", lines
    alike = stored.with_any_seed(stored.stages_of(before))
    seeds = [result.metrics["val"]["accuracy"] for result in alike.values()]
    if len(seeds) < LEAST_SEEDS:
        return "", [*lines, f"what other seeds give is not known: {len(seeds)} were tried"]
    if outside := statistical_trouble(metrics, seeds):
        return "", [*lines, outside]
    return "statistical", lines


def _text(content: str | None) -> str:
    if content is None:
        raise InputError("the commit has no results to compare with: `dvc repro`, then commit them")
    return content


def differing_outputs(before: str, after: str) -> list[tuple[str, str]]:
    """(stage, path) of each output whose hash differs between two dvc.lock, in pipeline order."""
    found = []
    own = [*identity.locked_names(before), *identity.locked_names(after)]
    for name in dict.fromkeys([*dvc_files.STAGES, *own]):
        entries = (identity.locked_stage(lock, name) or {"outs": {}} for lock in (before, after))
        outs = (entry["outs"] for entry in entries)
        found += [(name, path) for path in identity.differing(*outs)]
    return found


def first_difference(before: str, after: str) -> str:
    """Where two histories (texts of history.csv) begin to differ, in words; empty if nowhere."""
    old, new = _rows(before), _rows(after)
    for number, (one, other) in enumerate(zip(old, new, strict=False), start=1):
        for key in one:
            if one[key] != other.get(key):
                values = f"{key} {one[key]} and {other.get(key)}"
                return f"the histories part in epoch {number}: {values}"
    if len(old) != len(new):
        return f"one history has {counted(len(old), 'epoch')}, the other {len(new)}"
    return ""


def numeric_trouble(history: tuple[str, str], metrics: tuple[str, str]) -> list[str]:
    """What is outside the bounds of the numeric tier, in words; each pair is (before, after)."""
    trouble = []
    first = [_rows(text)[:1] for text in history]
    if all(first):
        one, other = (float(rows[0]["train_loss"]) for rows in first)
        if not math.isclose(one, other, rel_tol=FIRST_LOSS):
            trouble.append(f"the loss of the first epoch is {other:g} instead of {one:g}")
    old, new = (json.loads(text) for text in metrics)
    for split in old:
        for key in BOUNDED:
            if key not in old[split]:  # a commit older than this metric
                continue
            expected, found = old[split][key], new.get(split, {}).get(key, math.nan)
            allowed = STANDARD_ERRORS * math.sqrt(2) * _standard_error(old[split], key)
            if not abs(found - expected) <= allowed:
                words = f"is {found:g} instead of {expected:g} ± {allowed:.2g}"
                trouble.append(f"{split} {key} {words}")
    return trouble


def _standard_error(group: dict[str, float], key: str) -> float:
    """Of a share for accuracy, else from the metric's own interval; at least that of one more
    error, or one more nat of loss, in all: a flawless net has an interval without width."""
    value, count = group[key], group["n"]
    if key == "accuracy":
        return math.sqrt(max(value * (1 - value), 1 / count) / count)
    width = group.get(f"{key}_high", value) - group.get(f"{key}_low", value)
    return max(width / WIDTH, 1 / count)


def statistical_trouble(metrics: tuple[str, str], seeds: list[float]) -> str:
    """Whether val accuracy lies outside that of `seeds` (three trainings or more), in words, else
    empty. Their standard deviation counts as at least that of rounding to whole samples."""
    group = json.loads(metrics[1])["val"]
    found = statistics.spread(seeds, 1 / (group["n"] * math.sqrt(12)))
    allowed = found.of_next(OUTSIDE)
    if abs(group["accuracy"] - found.mean) <= allowed:
        return ""
    return (
        f"val accuracy {group['accuracy']:g} is outside {found.mean:g} ± {allowed:.2g}, where "
        f"{found.n} other seeds lie"
    )


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
