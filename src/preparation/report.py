"""What became of the samples: report.json, and rejects.csv with a row for each not used."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.base.files import CsvWriter, write_bytes, write_json
from src.base.words import counted, either
from src.data.split import SPLITS
from src.preparation.ledger import Ledger
from src.preparation.shares import far_from_wanted
from src.preparation.sources.base import Item, Rejected, Source
from src.preparation.targets import whole_numbers

FEW = 2  # samples of a class in val or test from which no score follows (choice)


class Report:
    """Counts while samples are packed into `folder`, and writes the two files there."""

    def __init__(self, source: Source, ledger: Ledger, folder: Path):
        self.source, self.ledger, self.folder = source, ledger, folder
        self.rejected, self.used = 0, 0  # a sample that is used is counted by the caller
        self.reasons: Counter[str] = Counter()
        self.told: list[str] = []  # what a person should know, complete when all are packed
        self._first = ""  # of those rejected
        self._table = CsvWriter(folder / "rejects.csv", ("path", "reason", "what to do"))

    def reject(self, item: Item, why: Rejected) -> None:
        """Note a sample that cannot be used."""
        reason = f"{why.reason} ({why.detail})" if why.detail else why.reason
        self._table.add((item.name, reason, why.remedy))
        self._first = self._first or f"{item.name} cannot be used: {reason}: {why.remedy}"
        self.rejected += 1
        self.reasons[why.reason] += 1

    def close(self) -> None:
        self._table.close()

    def write(self, notes: Mapping[str, Any]) -> None:
        """Write report.json. `notes`: what the kind of sample adds."""
        ledger, classes = self.ledger, list(enumerate(self.source.classes))
        totals = sum(ledger.per_class.values(), Counter[int]())
        leaks: dict[str, Any] = {"leaks": vars(ledger.leaks)}
        if self.source.published:
            leaks = {"left_out_as_in_a_given_split": ledger.leaks.count}
        content = {
            "used": self.used,
            "rejects": {"count": self.rejected, "by_reason": dict(sorted(self.reasons.items()))},
            "per_class": {
                split: {name: counts[label] for label, name in classes}
                for split, counts in ledger.per_class.items()
            },
            "share_of_class": {
                split: {name: counts[label] / (totals[label] or 1) for label, name in classes}
                for split, counts in ledger.per_class.items()
            },
            "identical_pictures": ledger.identical.count,
            "identical_pictures_first": ledger.identical.first,
            "conflicting_labels": vars(ledger.conflicts),
            **leaks,
            **notes,
            **self.source.notes,
        }
        write_json(self.folder / "report.json", content)

    def left_out(self) -> dict[str, int]:
        """How many samples and files are not used, by reason."""
        others = {
            "another split has the same image or group": self.ledger.leaks.count,
            "by its name no image": self.source.notes.get("files_left_out", 0),
        }
        return {**self.reasons, **{key: n for key, n in others.items() if n}}

    def remarks(self) -> list[str]:
        """A line for each thing that a person should know of."""
        ledger = self.ledger
        found = []
        if self.rejected:
            reasons = ", ".join(f"{why}: {count}" for why, count in self.reasons.most_common(3))
            reasons += ", ..." if len(self.reasons) > 3 else ""
            were = f"{either(self.rejected, 'was', 'were')} left out"
            found.append(f"{self.unusable()} and {were} ({reasons}): see rejects.csv")
        if count := ledger.leaks.count:
            why = "another split has the same sample or group"
            if self.source.published:
                why = "a published split has the same ones"
            found.append(
                f"{counted(count, 'sample')} {either(count, 'was', 'were')} left out: {why}"
            )
        if count := ledger.conflicts.count:
            first = ledger.conflicts.first[0]
            more = f" and {count - 1} more" if count > 1 else ""
            found.append(
                f"{counted(count, 'sample')} {either(count, 'is', 'are')} there with different "
                f"labels: {first['path']} ({first['label']!r}), {first['as_path']} "
                f"({first['as_label']!r}){more}"
            )
        if line := far_from_wanted(ledger):
            found.append(line)
        found += filter(None, (self.large_group(), whole_numbers(self.samples_of_classes())))
        found += self._few()
        for split, names in ledger.missing():
            shown = ", ".join(map(repr, names[:5]))
            found.append(
                f"no sample of class {shown} is in split {split}: nothing is measured on it"
            )
        return found

    def _few(self) -> Iterator[str]:
        """A line for each of val and test that has almost nothing of some classes."""
        for split in SPLITS[1:]:
            counts = self.ledger.per_class[split]
            few = {name: counts[k] for k, name in enumerate(self.source.classes)}
            few = {name: count for name, count in few.items() if 0 < count <= FEW}
            if few:
                first = min(few, key=lambda name: few[name])
                shown = f"class {first!r} has {counted(few[first], 'sample')} in {split}"
                if len(few) > 1:
                    all_of = len(self.source.classes)
                    shown = f"{len(few)} of {all_of} classes have at most {FEW} samples in {split}"
                    shown += f" (the fewest: {first!r}, {few[first]})"
                yield f"{shown}: one image decides what is measured on such a class"

    def samples_of_classes(self) -> dict[str, int]:
        """How many samples each class has in the splits."""
        totals = sum(self.ledger.per_class.values(), Counter[int]())
        return {name: totals[label] for label, name in enumerate(self.source.classes)}

    def large_group(self) -> str:
        """What to do about a group that has more than half of all samples; empty without one."""
        if not (found := self.ledger.largest_group()):
            return ""
        name, count, total = found
        return (
            f"group {name!r} has {count} of {counted(total, 'sample')}, and a group goes to one "
            "split whole: if it stands for samples whose group is not known, give those none (an "
            "empty cell); else group by something finer"
        )

    def unusable(self) -> str:
        """`2 samples cannot be used`."""
        return f"{counted(self.rejected, 'sample')} cannot be used"

    def first_rejected(self, failed: Path) -> str:
        """One line: the first sample that cannot be used, and how many more."""
        more, table = self.rejected - 1, _relative(failed / "rejects.csv")
        others = f"{counted(more, 'more such sample')}, all in {table}" if more else f"see {table}"
        without = f"prepare.on_bad=skip goes on without {either(self.rejected, 'it', 'them')}"
        return f"{self._first}; {others}; {without}"

    def first_leak(self, failed: Path) -> str:
        """One line: the first sample that two splits would share, and how many more."""
        first, more = self.ledger.leaks.first[0], self.ledger.leaks.count - 1
        return (
            f"{first['path']} of split {first['split']} is {first['what']} as {first['as_path']} "
            f"of split {first['in_split']}, and a net must not be tested on what it learnt: "
            f"remove one of them; {counted(more, 'more such sample') + ', ' if more else ''}see "
            f"{_relative(failed / 'report.json')}; prepare.on_leak=drop goes on without "
            + either(more + 1, "it", "them")
            + (f"; {line}" if (line := self.large_group()) else "")
        )

    def copy_to(self, failed: Path) -> None:
        """Keep the two files of a run that fails, whose output vanishes."""
        for name in ("report.json", "rejects.csv"):
            write_bytes(failed / name, (self.folder / name).read_bytes())


def _relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
