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
    """The classes to leave out, and new names by the ones in the data."""

    left_out: frozenset[str]
    merged: Mapping[str, str]

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Choice":
        """What the params say. InputError for an entry of `merge` that is no `class=new name`."""
        left_out, merge = params["prepare.leave_out"], params["prepare.merge"]
        merged: dict[str, str] = {}
        for entry in merge if isinstance(merge, list) else []:
            old, _, new = entry.partition("=")
            if not old or not new.strip():
                raise InputError(
                    f"params.yaml: prepare.merge must list 'class=new name', got '{entry}'"
                )
            if old in merged:
                raise InputError(f"params.yaml: prepare.merge names class {old!r} twice")
            merged[old] = new
        chosen = cls(frozenset(left_out if isinstance(left_out, list) else ()), merged)
        for name in sorted(chosen.left_out & set(merged)):
            raise InputError(
                f"params.yaml: class {name!r} stands in prepare.leave_out and in prepare.merge: "
                "keep it in one of them"
            )
        return chosen

    def name(self, name: str) -> str:
        """What a class of the data is called."""
        return self.merged.get(name, name)


def with_chosen_classes(source: Source, params: Mapping[str, Any]) -> Source:
    """`source` without the samples of the classes to leave out, and the others under their new
    names. InputError for a class that it does not have, and if fewer than two are left."""
    choice = Choice.of(params)
    if not choice.left_out and not choice.merged:
        return source
    for key, wanted in (("leave_out", choice.left_out), ("merge", choice.merged)):
        for name in sorted(set(wanted) - set(source.classes)):
            hint = did_you_mean(name, source.classes)
            shown = ", ".join(map(repr, source.classes[:5]))
            more = ", ..." if len(source.classes) > 5 else ""
            raise InputError(
                f"params.yaml: prepare.{key} names {name!r}, which is no class of the data"
                + (hint or f": they have {shown}{more}")
            )
    kept = {old: choice.name(old) for old in source.classes if old not in choice.left_out}
    classes = list(dict.fromkeys(kept.values()))
    if len(classes) < 2:
        raise InputError(
            f"params.yaml: prepare.leave_out and prepare.merge leave {len(classes)} of the "
            f"{len(source.classes)} classes, and training needs two"
        )
    counts: Counter[str] = Counter()  # of samples left out, by class; complete after the last item
    label_of = [classes.index(kept[old]) if old in kept else None for old in source.classes]
    twins = remark_on_twins(source.classes)
    remarks = [line for line in source.remarks if line not in twins] + remark_on_twins(classes)

    def items() -> Iterator[Item]:
        for item in source.items:
            if item.label < 0:  # refused, and of no known class
                yield item
                continue
            label = label_of[item.label]
            if label is None:
                counts[source.classes[item.label]] += 1
            else:
                yield replace(item, label=label)
        if counts:
            there = [name for name in source.classes if counts[name]]
            shown = ", ".join(f"{counts[name]} of {name!r}" for name in there[:5])
            more = ", ..." if len(there) > 5 else ""
            remarks.append(f"left out, as prepare.leave_out says: {shown}{more}")

    notes = {**source.notes, "left_out_classes": counts}
    return replace(source, classes=classes, items=items(), notes=notes, remarks=remarks)
