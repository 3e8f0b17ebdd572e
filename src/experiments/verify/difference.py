"""What differs between a result and the same run again: inputs, outputs, the course of a training.

Both are given as the texts of files: dvc.lock names every input and output by its hash, history.csv
holds a row per epoch, metrics.json the result.
"""

import csv
import io
import json
import math
from pathlib import Path

from src.plumbing import dvc_files, git, identity, params

# Another instruction set or device adds in another order: losses of the first epoch agree to some
# 1e-4 then, and part later, as training amplifies differences (choice, with room).
FIRST_LOSS = 0.02  # relative difference of the first epoch's training loss
# Two trainings that agree only numerically end like two seeds: each metric may differ by as much as
# two standard errors of a difference.
STANDARD_ERRORS = 2.0
BOUNDED = ("accuracy", "macro_f1", "log_loss")  # the metrics with an interval
WIDTH = 3.92  # standard errors in the width of a 95 % interval (normal distribution)


def stale_inputs(lock: str, folder: Path) -> list[str]:
    """The params and source files in `folder` that are not those of its dvc.lock, whose text is
    `lock`: that result was made from something else. What stages make is no source. The commit may
    be older than this code and have other keys, or be cut down to fewer stages."""
    values, versions = params.load_texts(folder), dvc_files.read_versions(folder)
    found: list[str] = []
    made: set[str] = set()
    for name in dvc_files.declared_stages(dvc_files.STAGES, folder):
        entry, locked = (
            dvc_files.stage_entry(name, values, folder),
            identity.locked_stage(lock, name),
        )
        if locked is None:
            found.append(f"{name} never ran")
            continue
        missing = [key for key in entry.params if key not in values]
        found += [f"{name}: {key} is missing" for key in missing]
        if missing:
            continue
        for key, value in identity.declared_values(entry, values, versions).items():
            before = locked["params"].get(key)
            if identity.canonical(value) != identity.canonical(before):
                found.append(f"{name}: {key} is {value}, was {before}")
        for dep in entry.deps:
            there = dep not in made and (folder / dep).exists()
            if there and dvc_files.md5_of(folder / dep) != locked["deps"].get(dep):
                md5 = locked["deps"].get(dep, "")
                is_code = dvc_files.is_code(dep)
                files = git.files_changed(dep, md5, folder) if is_code else [dep]
                found += [f"{name}: {path} has changed" for path in files]
        made |= set(entry.outs)
    return found


def edited_outputs(lock: str, folder: Path) -> list[str]:
    """The outputs in git that are not those of the dvc.lock with the text `lock`, in words.
    `folder`: a checkout in which no stage has run, so what DVC keeps in its cache is not there."""
    values, found = params.load_texts(folder), []
    for name in dvc_files.declared_stages(dvc_files.STAGES, folder):
        entry = dvc_files.stage_entry(name, values, folder)
        outs = (identity.locked_stage(lock, name) or {"outs": {}})["outs"]
        for path in dict.fromkeys([*outs, *entry.outs]):
            if not (folder / path).exists():
                if path in entry.uncached:
                    found.append(f"{path} is not in git")
            elif dvc_files.md5_of(folder / path) != outs.get(path):
                found.append(f"{path} is not what {name} wrote")
    return found


def of_outputs(before: str, after: str) -> list[tuple[str, str]]:
    """(stage, path) of each output whose hash differs between two dvc.lock, in the order of the
    pipeline."""
    found = []
    for name in dvc_files.STAGES:
        old, new = (
            (identity.locked_stage(lock, name) or {"outs": {}})["outs"] for lock in (before, after)
        )
        found += [(name, path) for path in {**old, **new} if old.get(path) != new.get(path)]
    return found


def parting(before: str, after: str) -> str:
    """Where two histories (the texts of history.csv) part, in words; empty if they do not."""
    old, new = _rows(before), _rows(after)
    for number, (one, other) in enumerate(zip(old, new, strict=False), start=1):
        for key in one:
            if one[key] != other.get(key):
                return (
                    f"the histories part in epoch {number}: {key} {one[key]} and {other.get(key)}"
                )
    if len(old) != len(new):
        return f"one history has {len(old)} epochs, the other {len(new)}"
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
    """That of a metric: of a share for accuracy, of the metric's own interval for the others. At
    least that of one picture in all, right or wrong or with one more nat of loss: a flawless net
    has an interval without width."""
    value, count = group[key], group["n"]
    if key == "accuracy":
        return math.sqrt(max(value * (1 - value), 1 / count) / count)
    width = group.get(f"{key}_high", value) - group.get(f"{key}_low", value)
    return max(width / WIDTH, 1 / count)


def statistical_trouble(metrics: tuple[str, str], seeds: list[float]) -> str:
    """Whether val accuracy lies outside what other seeds gave, in words; empty if it does not.
    `seeds`: val accuracy of at least three trainings that differ in `seed` alone."""
    mean = sum(seeds) / len(seeds)
    spread = math.sqrt(sum((value - mean) ** 2 for value in seeds) / (len(seeds) - 1))
    group = json.loads(metrics[1])["val"]
    found = group["accuracy"]
    # Seeds that are all alike say nothing of noise: at least that of rounding to whole pictures.
    spread = max(spread, 1 / (group["n"] * math.sqrt(12)))
    # 99 % of a normal distribution, wider for few seeds by Student's t.
    from scipy.stats import t

    allowed = float(t.ppf(0.995, len(seeds) - 1)) * spread * math.sqrt(1 + 1 / len(seeds))
    if abs(found - mean) <= allowed:
        return ""
    return (
        f"val accuracy {found:g} is outside {mean:g} ± {allowed:.2g}, where "
        f"{len(seeds)} other seeds lie"
    )


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
