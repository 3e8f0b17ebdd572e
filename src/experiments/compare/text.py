"""A report for people: in the terminal, as markdown, and in a line."""

import shlex

from src.base.words import counted
from src.experiments.compare.report import Comparison, Report, Scores
from src.experiments.statistics import LEAST_SEEDS
from src.plumbing import overrides

SHOWN = 12  # changes of a kind that are listed (choice)
IMAGES = "this is about these images and these two networks, not about training again"


def terminal(report: Report) -> str:
    """The report in 100 columns (a name or a path may be longer)."""
    lines = []
    for item in report.comparisons:
        lines += [f"What changed from {item.first} to {item.second}", ""]
        lines += [f"  {line}" for line in changed(item)] + [""]
    lines += [
        f"Is it more than noise? {capital(report.measured)}, by seeds",
        "",
    ]
    width = max(len(item.name) for item in report.groups)
    lines.append(f"  {'':{width}}  seeds    mean      sd")
    for group in report.groups:
        count = len(group.by_seed)
        lines.append(f"  {group.name:{width}}  {count:>5}  {group.mean:.4f}  {_spread(group)}")
    for item in report.comparisons:
        lines += ["", f"  {item.second} against {item.first}"]
        verdict, *reasons = training(item)
        lines += [f"    training again: {verdict}", *(f"      {line}" for line in reasons)]
        lines += [f"    {on_images(item)};", f"      {IMAGES}"]
    if report.looks is not None:
        lines += ["", f"  {looks(report.looks)}"]
    return "\n".join(lines)


def changed(item: Comparison) -> list[str]:
    """What changed, a line for each, then a warning if it is more than one thing."""
    found = item.changed
    lines = [f"param    {key}: {one} → {other}" for key, (one, other) in found.params.items()]
    lines += [f"code     {path}" for path in found.code[:SHOWN]]
    if len(found.code) > SHOWN:
        lines.append(f"code     and {counted(len(found.code) - SHOWN, 'more file')}")
    lines += [f"data     {path}: {a[:7]} → {b[:7]}" for path, (a, b) in found.data.items()]
    lines += [f"version  {name}: {one} → {other}" for name, (one, other) in found.versions.items()]
    if warned := warning(item):
        lines.append(warned)
    return lines


def warning(item: Comparison) -> str:
    """A line if more than one thing changed, else empty."""
    things = item.changed.causes
    if len(things) < 2:
        return ""
    return (
        f"WARNING: {len(things)} things changed ({', '.join(things[:4])}"
        f"{' ...' if len(things) > 4 else ''}): no difference can be put down to one of them"
    )


def training(item: Comparison) -> list[str]:
    """The verdict on training again, and what it rests on."""
    pair = item.training
    if pair.difference is None:
        return ["undecided: no seed was run with both", more_seeds(item)]
    first = item.verdict
    if item.verdict == "undecided" and pair.n < LEAST_SEEDS:
        first += f": {counted(pair.n, 'common seed')}, {LEAST_SEEDS} are needed"
    lines = [first, f"difference {pair.difference:+.4f}{_interval(item)}"]
    if pair.better is not None:
        lines.append(
            f"P({item.second} better than {item.first}) = {pair.better:.2f} "
            f"({pair.better_low:.2f} to {pair.better_high:.2f}), ties count half"
        )
    if pair.n < LEAST_SEEDS:
        lines.append(more_seeds(item))
    return lines


def _interval(item: Comparison) -> str:
    pair = item.training
    if pair.low is None or item.p_corrected is None:
        return ", one seed: no interval"
    return (
        f", 95 % interval {pair.low:+.4f} to {pair.high:+.4f} "
        f"(paired t, {pair.n} seeds, p = {item.p_corrected:.2g}{_correction(item)})"
    )


def _correction(item: Comparison) -> str:
    """What to add to a p value: that it need not agree with its interval."""
    if item.among == 1:
        return ""
    return f", corrected for {item.among} comparisons (Holm), the interval is not"


def more_seeds(item: Comparison) -> str:
    """The remedy for too few seeds."""
    commands = [
        shlex.join(["python", "-m", "src.seeds", str(LEAST_SEEDS), *overrides.arguments(values)])
        for values in (item.first_overrides, item.second_overrides)
    ]
    code = ", each with its own code (`dvc exp apply` or `git switch` first)"
    return f"more seeds: {'; '.join(dict.fromkeys(commands))}{code if item.changed.code else ''}"


def on_images(item: Comparison) -> str:
    """What the stored predictions say, in a line."""
    found, (one, other) = item.images, item.images_seeds
    seeds = f"seed {one}" if one == other else f"seeds {one} and {other}"
    test = "McNemar p" if found.groups is None else f"p over {found.groups} groups"
    over = "" if found.groups is None else f" over {found.groups} groups"
    return (
        f"these {found.n} images, {seeds}: only {item.second} right {found.only_second}, only "
        f"{item.first} right {found.only_first}, {test} = {item.images_p_corrected:.2g}"
        f"{_correction(item)};\n"
        f"      difference in accuracy {found.difference:+.4f}, bootstrap 95 % interval{over} "
        f"{found.low:+.4f} to {found.high:+.4f}"
    )


def looks(count: int) -> str:
    """What the count of looks at test means."""
    return f"look {count} at test: each look that decides something makes its numbers less true"


def headline(item: Comparison, report: Report) -> str:
    """The outcome in a line."""
    pair = item.training
    seeds = counted(pair.n, "common seed")
    if pair.difference is None:
        return f"{item.verdict}: {seeds}"
    span = "" if pair.low is None else f" ({pair.low:+.4f} to {pair.high:+.4f})"
    return f"{item.verdict}: {report.measured} {pair.difference:+.4f}{span}, {seeds}"


def markdown(report: Report) -> str:
    """The report to paste into a pull request."""
    lines: list[str] = []
    for item in report.comparisons:
        lines += [f"### `{item.second}` against `{item.first}`: {item.verdict}", ""]
        warned = warning(item)
        listed = [line for line in changed(item) if line != warned]
        lines += [f"- {' '.join(line.split())}" for line in listed]
        lines += ["", f"**{warned}**"] if warned else []
        lines += ["", "Training again: " + "; ".join(training(item)) + "."]
        lines += ["", capital(" ".join(on_images(item).split())) + f"; {IMAGES}.", ""]
    lines += [
        f"| {report.measured} | seeds | mean | sd |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{group.name}` | {len(group.by_seed)} | {group.mean:.4f} | {_spread(group)} |"
        for group in report.groups
    ]
    if report.looks is not None:
        lines += ["", capital(looks(report.looks)) + "."]
    return "\n".join(lines)


def capital(line: str) -> str:
    return line[0].upper() + line[1:]


def _spread(group: Scores) -> str:
    return "     -" if group.spread is None else f"{group.spread:.4f}"
