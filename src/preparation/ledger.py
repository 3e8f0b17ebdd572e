"""Which sample went into which split, and what that shows: copies, leaks, contradicting labels."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from src.base.files import scratch_database
from src.data.split import SPLITS, split_of
from src.preparation.sources.base import Item

LISTED = 50  # examples of each kind in report.json (choice)


@dataclass
class Cases:
    """How often something happened, and the first times."""

    count: int = 0
    first: list[dict[str, str]] = field(default_factory=list)

    def add(self, **case: str) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(case)


class Ledger:
    """Gives every sample its split: the one that the source names, else by the hash of its group,
    or of its content or path (`by`). `shares` of val and test. Contents and groups are kept on the
    disk, so that millions take no memory."""

    def __init__(
        self, classes: list[str], seed: int, shares: tuple[float, float], by: str = "content"
    ):
        self.classes, self.seed, self.shares, self.by = classes, seed, shares, by
        self.has_groups = False  # of which some go by hash
        self.identical, self.conflicts, self.leaks = Cases(), Cases(), Cases()
        self.per_class: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self._database = scratch_database()
        self._database.execute(
            "CREATE TABLE contents (sha256 BLOB PRIMARY KEY, split TEXT, label INTEGER, name TEXT, "
            "hashed TEXT) WITHOUT ROWID"
        )
        self._database.execute(
            "CREATE TABLE groups (name TEXT PRIMARY KEY, split TEXT, first TEXT, count INTEGER) "
            "WITHOUT ROWID"
        )

    def place(self, item: Item, sha256: str) -> str | None:
        """A sample's split; None for a leak: another split has its content or one of its group."""
        hashed = None if item.split else self._hashed(item, sha256)
        split = item.split or split_of(hashed or sha256, self.seed, *self.shares)
        group = self._known("groups", "first", "name", item.group) if item.group else None
        if group:
            sql = "UPDATE groups SET count = count + 1 WHERE name = ?"
            self._database.execute(sql, (item.group,))
        same = self._known("contents", "name, label", "sha256", bytes.fromhex(sha256))
        for known, what in ((same, "the same image"), (group, f"of the same group {item.group}")):
            if known and known[0] != split:
                self.leaks.add(
                    path=item.name, split=split, what=what, as_path=known[1], in_split=known[0]
                )
                return None
        self.per_class[split][item.label] += 1
        self.has_groups |= bool(item.group and hashed)
        if item.group and not group:
            named = (item.group, split, item.name)
            self._database.execute("INSERT INTO groups VALUES (?, ?, ?, 1)", named)
        if same:
            self.identical.add(path=item.name, as_path=same[1])
            if same[2] != item.label:
                labels = {"label": self.classes[item.label], "as_label": self.classes[same[2]]}
                self.conflicts.add(path=item.name, as_path=same[1], **labels)
        else:
            row = (bytes.fromhex(sha256), split, item.label, item.name, hashed)
            self._database.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", row)
        return split

    def groups(self) -> dict[str, int]:
        """How many groups each split has."""
        sql = "SELECT split, count(*) FROM groups GROUP BY split"
        counts: dict[str, int] = dict(self._database.execute(sql))
        return {split: counts.get(split, 0) for split in SPLITS}

    def largest_group(self) -> tuple[str, int, int] | None:
        """The group that has more than half of all samples, how many, and of how many."""
        sql = "SELECT name, count FROM groups ORDER BY count DESC LIMIT 1"
        name, count = self._database.execute(sql).fetchone() or ("", 0)
        total = sum(counts.total() for counts in self.per_class.values()) + self.leaks.count
        return (name, count, total) if 2 * count > total else None

    def missing(self) -> Iterator[tuple[str, list[str]]]:
        """Each split that has no sample of some classes, and the names of these."""
        for split, counts in self.per_class.items():
            if names := [name for label, name in enumerate(self.classes) if not counts[label]]:
                yield split, names

    def hashed(self, most_per_class: int) -> Iterator[tuple[int, str]]:
        """Distinct (class index, what is hashed), at most `most_per_class` per class."""
        wanted = "label = ? AND hashed IS NOT NULL LIMIT ?"
        sql = f"SELECT DISTINCT label, hashed FROM contents WHERE {wanted}"
        for label in range(len(self.classes)):
            yield from self._database.execute(sql, (label, most_per_class))

    def hashed_counts(self) -> Iterator[tuple[str, int, int]]:
        """(split, class index, number) of the distinct contents that have their split by hash."""
        yield from self._database.execute(
            "SELECT split, label, count(*) FROM contents WHERE hashed IS NOT NULL "
            "GROUP BY split, label"
        )

    def units(self) -> Iterator[tuple[str, int, int]]:
        """(what is hashed, class index, number of distinct contents) of each group, or sample
        without one, that has its split by hash."""
        yield from self._database.execute(
            "SELECT hashed, label, count(*) FROM contents WHERE hashed IS NOT NULL "
            "GROUP BY hashed, label"
        )

    def _hashed(self, item: Item, sha256: str) -> str:
        if item.group:
            return f"group {item.group}"
        return f"path {item.name}" if self.by == "path" else sha256

    def _known(self, table: str, more: str, key: str, value: Any) -> Any:
        sql = f"SELECT split, {more} FROM {table} WHERE {key} = ?"
        return self._database.execute(sql, (value,)).fetchone()
