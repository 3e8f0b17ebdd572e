"""What became of the samples: report.json, and rejects.csv with a row for each not used."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.base.files import CsvWriter, write_bytes, write_json
from src.preparation.ledger import Cases, Ledger
from src.preparation.sources.base import Item, Rejected, Source

FILES = ("report.json", "rejects.csv")
COLUMNS = ("path", "reason", "what to do")


class Report:
    """Counts while samples are packed into `folder`, and writes the two files there."""

    def __init__(self, source: Source, ledger: Ledger, folder: Path):
        self.source, self.ledger, self.folder = source, ledger, folder
        self.rejected, self.used = 0, 0  # a sample that is used is counted by the caller
        self.reasons: Counter[str] = Counter()
        self._first: tuple[str, str, str] | None = None
        self._table = CsvWriter(folder / "rejects.csv", COLUMNS)

    def reject(self, item: Item, why: Rejected) -> None:
        """Note a sample that cannot be used."""
        reason = f"{why.reason} ({why.detail})" if why.detail else why.reason
        self._table.add((item.name, reason, why.remedy))
        self._first = self._first or (item.name, reason, why.remedy)
        self.rejected += 1
        self.reasons[why.reason] += 1

    def close(self) -> None:
        self._table.close()

    def write(self, notes: Mapping[str, Any]) -> None:
        """Write report.json. `notes`: what the kind of sample adds."""
        write_json(self.folder / "report.json", self._content(notes))

    def _content(self, notes: Mapping[str, Any]) -> dict[str, Any]:
        ledger, classes = self.ledger, self.source.classes
        by_split = ledger.per_class.values()
        totals = [sum(counts[label] for counts in by_split) or 1 for label in range(len(classes))]
        return {
            "used": self.used,
            "rejects": {"count": self.rejected, "by_reason": dict(sorted(self.reasons.items()))},
            "per_class": {
                split: {name: counts[label] for label, name in enumerate(classes)}
                for split, counts in ledger.per_class.items()
            },
            "share_of_class": {
                split: {name: counts[label] / totals[label] for label, name in enumerate(classes)}
                for split, counts in ledger.per_class.items()
            },
            "identical_pictures": ledger.identical.count,
            "identical_pictures_first": ledger.identical.first,
            "conflicting_labels": vars(ledger.conflicts),
            **self._leaks(),
            **notes,
            **self.source.notes,
        }

    def _leaks(self) -> dict[str, Any]:
        leaks = self.ledger.leaks
        if self.source.published:
            return {"left_out_as_in_a_given_split": leaks.count}
        return {"leaks": vars(leaks)}

    def left_out(self) -> dict[str, int]:
        """How many samples and files are not used, by reason."""
        leaks = {"another split has the same picture or group": self.ledger.leaks.count}
        files = {"by its name no picture": self.source.notes.get("files_left_out", 0)}
        return {**self.reasons, **{key: n for key, n in {**leaks, **files}.items() if n}}

    def remarks(self) -> list[str]:
        """A line for each thing that a person should know of."""
        ledger = self.ledger
        found = []
        if self.rejected:
            reasons = ", ".join(
                f"{reason}: {count}" for reason, count in self.reasons.most_common(3)
            ) + (", ..." if len(self.reasons) > 3 else "")
            found.append(
                f"{self.rejected} samples cannot be used and were left out ({reasons}): see "
                "rejects.csv"
            )
        if ledger.leaks.count and self.source.published:
            found.append(
                f"{ledger.leaks.count} samples were left out: a published split has the same ones"
            )
        elif ledger.leaks.count:
            found.append(
                f"{ledger.leaks.count} samples were left out: another split has the same sample or "
                "group"
            )
        if ledger.conflicts.count:
            count, shown = ledger.conflicts.count, _shown(ledger.conflicts)
            found.append(f"{count} samples are there with different labels: {shown}")
        for split, counts in ledger.per_class.items():
            missing = [name for label, name in enumerate(ledger.classes) if not counts[label]]
            if missing:
                shown = ", ".join(missing[:5])
                found.append(
                    f"no sample of class {shown} is in split {split}: nothing is measured on it"
                )
        return found

    def first_rejected(self, failed: Path) -> str:
        """One line: the first sample that cannot be used, and how many more."""
        assert self._first is not None
        name, reason, remedy = self._first
        more = self.rejected - 1
        return (
            f"{name} cannot be used: {reason}: {remedy}; {more or 'no'} more such "
            f"sample{'s'[: more != 1]}, all in {_relative(failed / 'rejects.csv')}; "
            "prepare.on_bad=skip goes on without them"
        )

    def first_leak(self, failed: Path) -> str:
        """One line: the first sample that two splits would share, and how many more."""
        first, more = self.ledger.leaks.first[0], self.ledger.leaks.count - 1
        return (
            f"{first['path']} of split {first['split']} is {first['what']} as {first['as_path']} "
            f"of split {first['in_split']}, and a net must not be tested on what it learnt: "
            f"remove one of them; {more or 'no'} more such sample{'s'[: more != 1]}, see "
            f"{_relative(failed / 'report.json')}; prepare.on_leak=drop goes on without them"
        )

    def copy_to(self, failed: Path) -> None:
        """Keep the two files of a run that fails, whose output vanishes."""
        for name in FILES:
            write_bytes(failed / name, (self.folder / name).read_bytes())


def _shown(cases: Cases) -> str:
    first = cases.first[0]
    more = f" and {cases.count - 1} more" if cases.count > 1 else ""
    return f"{first['path']} ({first['label']}), {first['as_path']} ({first['as_label']}){more}"


def _relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
