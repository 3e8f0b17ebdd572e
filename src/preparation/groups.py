"""Groups that stand for a missing one: `NaN` is no patient, though a table may say it 500 times."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from src.base.words import counted
from src.preparation.sources.base import Item, Source

# How programs write that nothing is known, in lower case: the words of pandas, and signs.
MISSING = {"nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nil", "-", "--", "?", "."}


def without_missing_groups(source: Source) -> Source:
    """`source` with samples alone whose group is a word for a missing one, as those without any."""
    if not source.grouped:
        return source
    counts: Counter[str] = Counter()
    remarks = list(source.remarks)

    def items() -> Iterator[Item]:
        for item in source.items:
            if item.group and item.group.strip().lower() in MISSING:
                counts[item.group] += 1
                yield replace(item, group=None)
            else:
                yield item
        if counts:
            words = ", ".join(map(repr, sorted(counts)))
            remarks.append(
                f"{counted(counts.total(), 'sample')} with the group {words}: taken as without "
                "one, so each is on its own; if it is the name of a group, write it otherwise"
            )

    return replace(source, items=items(), remarks=remarks)
