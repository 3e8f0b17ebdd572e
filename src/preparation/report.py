"""What became of the pictures: report.json, and rejects.csv a row for each not used."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from src.base.files import CsvWriter, write_bytes, write_json
from src.preparation.ledger import Cases, Ledger
from src.preparation.read import Packed, Rejected
from src.preparation.sources.base import Item, Source

FILES = ("report.json", "rejects.csv")
COLUMNS = ("path", "reason", "what to do")


class Report:
    """Counts while pictures are packed into `folder`, and writes the two files there."""

    def __init__(self, source: Source, ledger: Ledger, channels: int, folder: Path):
        self.source, self.ledger, self.folder = source, ledger, folder
        self.kept_mode = "L" if channels == 1 else "RGB"
        self.rejected, self.used = 0, 0
        self.reasons: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.turned, self.animations, self.frames = 0, 0, 0
        self._first: tuple[str, str, str] | None = None
        self._table = CsvWriter(folder / "rejects.csv", COLUMNS)

    def reject(self, item: Item, why: Rejected) -> None:
        """Note a picture that cannot be used."""
        reason = f"{why.reason} ({why.detail})" if why.detail else why.reason
        self._table.add((item.name, reason, why.remedy))
        self._first = self._first or (item.name, reason, why.remedy)
        self.rejected += 1
        self.reasons[why.reason] += 1

    def add(self, picture: Packed) -> None:
        """Note a picture that is used."""
        self.used += 1
        self.turned += picture.turned
        if picture.mode != self.kept_mode:
            self.modes[picture.mode] += 1
        if picture.frames > 1:
            self.animations += 1
            self.frames += picture.frames - 1

    def close(self) -> None:
        self._table.close()

    def write(self) -> None:
        """Write report.json."""
        write_json(self.folder / "report.json", self._content())

    def _content(self) -> dict[str, Any]:
        ledger, classes = self.ledger, self.source.classes
        totals = [sum(counts[label] for counts in ledger.per_class.values()) or 1
                  for label in range(len(classes))]  # fmt: skip
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
            "turned_upright": self.turned,
            "converted_modes": dict(sorted(self.modes.items())),
            "frames_left_out": {"pictures": self.animations, "frames": self.frames},
            **self.source.notes,
        }

    def _leaks(self) -> dict[str, Any]:
        leaks = self.ledger.leaks
        if self.source.published:
            return {"left_out_as_in_a_given_split": leaks.count}
        return {"leaks": vars(leaks)}

    def left_out(self) -> dict[str, int]:
        """How many pictures and files are not used, by reason."""
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
            found.append(f"{self.rejected} pictures cannot be used and were left out ({reasons}): "
                         "see rejects.csv")  # fmt: skip
        if ledger.leaks.count and self.source.published:
            found.append(f"{ledger.leaks.count} pictures were left out: a published split has the "
                         "same ones")  # fmt: skip
        elif ledger.leaks.count:
            found.append(f"{ledger.leaks.count} pictures were left out: another split has the same "
                         "picture or group")  # fmt: skip
        if ledger.conflicts.count:
            found.append(f"{ledger.conflicts.count} pictures are there with different labels: "
                         + _shown(ledger.conflicts))  # fmt: skip
        for split, counts in ledger.per_class.items():
            missing = [name for label, name in enumerate(ledger.classes) if not counts[label]]
            if missing:
                found.append(f"no picture of class {', '.join(missing[:5])} is in split {split}: "
                             "nothing is measured on it")  # fmt: skip
        return found

    def first_rejected(self, failed: Path) -> str:
        """One line: the first picture that cannot be used, and how many more."""
        assert self._first is not None
        name, reason, remedy = self._first
        more = self.rejected - 1
        return (
            f"{name} cannot be used: {reason}: {remedy}; {more or 'no'} more such "
            f"picture{'s'[: more != 1]}, all in {_relative(failed / 'rejects.csv')}; "
            "prepare.on_bad=skip goes on without them"
        )

    def first_leak(self, failed: Path) -> str:
        """One line: the first picture that two splits would share, and how many more."""
        first, more = self.ledger.leaks.first[0], self.ledger.leaks.count - 1
        return (
            f"{first['path']} of split {first['split']} is {first['what']} as {first['as_path']} "
            f"of split {first['in_split']}, and a net must not be tested on what it learnt: "
            f"remove one of them; {more or 'no'} more such picture{'s'[: more != 1]}, see "
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
