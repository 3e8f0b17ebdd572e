"""Which classes of a source are used, and which of them are one: `prepare.leave_out`, `merge`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean
from src.preparation.sources.base import Item, Source, remark_on_twins


@dataclass(frozen=True)
class Choice:
    """The classes to leave out; and of each entry of `merge` the new names by those in the data: a
    name may hold a =, and which one ends it, the classes of the data say."""

    left_out: frozenset[str]
    merges: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Choice":
        """What the params say. InputError for an entry of `merge` that is no `class=new name`."""
        left_out, merge = params["prepare.leave_out"], params["prepare.merge"]
        merges: list[dict[str, str]] = []
        for entry in merge if isinstance(merge, list) else []:
            ends = [end for end, letter in enumerate(entry) if letter == "="]
            ways = {entry[:end]: entry[end + 1 :] for end in ends if end}
            merges.append({old: new for old, new in ways.items() if new.strip()})
            if not merges[-1]:
                raise InputError(
                    f"params.yaml: prepare.merge must list 'class=new name', got '{entry}'"
                )
        return cls(frozenset(left_out if isinstance(left_out, list) else ()), tuple(merges))

    def name(self, name: str) -> str:
        """What a class of the data is called."""
        return next((ways[name] for ways in self.merges if name in ways), name)

    def merged(self, classes: list[str]) -> dict[str, str]:
        """The new names by those in the data, whose classes are `classes`. InputError for an entry
        that names none of them or two, and for a class that is named twice or left out."""
        found: dict[str, str] = {}
        for ways in self.merges:
            named = [old for old in ways if old in classes]
            if len(named) > 1:
                raise InputError(
                    f"params.yaml: prepare.merge names {' or '.join(map(repr, named))} in "
                    f"'{named[0]}={ways[named[0]]}', and both are classes of the data: rename one "
                    "of them there"
                )
            old = named[0] if named else next(iter(ways))
            _require_class(old, classes, "merge")
            if old in found:
                raise InputError(f"params.yaml: prepare.merge names class {old!r} twice")
            if old in self.left_out:
                raise InputError(
                    f"params.yaml: class {old!r} stands in prepare.leave_out and in prepare.merge: "
                    "keep it in one of them"
                )
            found[old] = ways[old]
        return found


def with_chosen_classes(source: Source, params: Mapping[str, Any]) -> Source:
    """`source` without the samples of the classes to leave out, and the others under their new
    names. InputError for a class that it does not have, and if fewer than two are left."""
    choice = Choice.of(params)
    if not choice.left_out and not choice.merges:
        return source
    for name in sorted(choice.left_out):
        _require_class(name, source.classes, "leave_out")
    merged = choice.merged(source.classes)
    kept = {old: merged.get(old, old) for old in source.classes if old not in choice.left_out}
    classes = list(dict.fromkeys(kept.values()))
    if len(classes) < 2:
        raise InputError(
            f"params.yaml: prepare.leave_out and prepare.merge leave {len(classes)} of the "
            f"{len(source.classes)} classes, and training needs two"
        )
    counts: Counter[str] = Counter()  # of samples left out, by class; complete after the last item
    moved: Counter[str] = Counter()  # of samples merged, by their class in the data
    label_of = [classes.index(kept[old]) if old in kept else None for old in source.classes]
    twins = remark_on_twins(source.classes)
    remarks = [line for line in source.remarks if line not in twins] + remark_on_twins(classes)

    def items() -> Iterator[Item]:
        for item in source.items:
            if item.label < 0:  # refused, and of no known class
                yield item
                continue
            label, name = label_of[item.label], source.classes[item.label]
            if label is None:
                counts[name] += 1
            else:
                moved[name] += name in merged
                yield replace(item, label=label)
        for done, key, there in (("left out", "leave_out", counts), ("merged", "merge", moved)):
            lines = [
                f"{there[old]} of {old!r}" + (f" into {merged[old]!r}" if old in merged else "")
                for old in source.classes
                if there[old]
            ]
            if lines:
                shown = ", ".join(lines[:5]) + (", ..." if len(lines) > 5 else "")
                remarks.append(f"{done}, as prepare.{key} says: {shown}")

    notes = {**source.notes, "left_out_classes": counts}
    return replace(source, classes=classes, items=items(), notes=notes, remarks=remarks)


def _require_class(name: str, classes: list[str], key: str) -> None:
    """InputError if `name`, which a key names, is no class of the data."""
    if name not in classes:
        hint = did_you_mean(name, classes)
        shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise InputError(
            f"params.yaml: prepare.{key} names {name!r}, which is no class of the data"
            + (hint or f": they have {shown}")
        )
