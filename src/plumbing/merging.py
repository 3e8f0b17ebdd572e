"""params.yaml and dvc.yaml with what is new upstream: texts in, text out.

Both are edited by people and follow the code, so that a merge line by line would meet conflicts
that are none. Each text is given as it was upstream, as it is upstream now, and as it is here.
"""

import re
from dataclasses import dataclass, replace

from src.plumbing import deps

KEY = re.compile(r"( *)([\w-]+):(?: +|$)")
# A key with its value, up to a comment: a `#` behind a space, but not in quotes.
HEAD = re.compile(r""" *[\w-]+:(\s+("(\\.|[^"\\])*"|'(''|[^'])*'))?([^\s#]|(?<=\S)#|\s(?!\s*#))*""")


@dataclass(frozen=True)
class Entry:
    """A key of params.yaml, dotted below its section; a section itself ends in a dot."""

    key: str
    above: str  # comments and blank lines before it
    head: str  # `key: value`
    comment: str  # `  # what it is`
    below: str  # further lines of its value

    @property
    def text(self) -> str:
        return f"{self.above}{self.head}{self.comment}\n{self.below}"

    @property
    def value(self) -> str:
        return " ".join(f"{self.head.partition(':')[2]} {self.below}".split())


def merged_params(
    base: str, theirs: str, ours: str, left_alone: str = " "
) -> tuple[str, list[str]]:
    """params.yaml with its own values: with the keys that are new, without those that are gone, and
    with changed comments where the old ones stand. And a line for each key that is new, gone or has
    another default. Keys that begin with `left_alone` stay as they are here."""
    before, now = (
        {item.key: item for item in entries_of(text) if not item.key.startswith(left_alone)}
        for text in (base, theirs)
    )
    said, found = [], []
    gone = {key for key in before if key not in now}
    own = {entry.key for entry in entries_of(ours)} - set(before)
    for entry in entries_of(ours):
        key = entry.key
        if key in gone and not (key.endswith(".") and any(name.startswith(key) for name in own)):
            if not key.endswith("."):
                said.append(f"gone     {key} (here it was {entry.value})")
            continue
        if key in before and key in now:
            old, new = before[key], now[key]
            if entry.above == old.above:
                entry = replace(entry, above=new.above)
            if entry.comment.strip() == old.comment.strip() != new.comment.strip():
                space = entry.comment[: len(entry.comment) - len(entry.comment.lstrip())] or "  "
                entry = replace(entry, comment=new.comment and space + new.comment.lstrip())
            if old.value != new.value and new.value != entry.value:
                said.append(
                    f"default  {key}: {old.value} -> {new.value}; here it stays {entry.value}"
                )
        found.append(entry)
    known = {entry.key for entry in found}
    earlier: list[str] = []
    for key, entry in now.items():
        if key not in known and key not in before:
            found.insert(_place(found, key, earlier), entry)
            if not key.endswith("."):
                shown = " ".join(f"{entry.value} {entry.comment}".split())
                said.append(f"new      {key}: {shown}")
        earlier.append(key)
    return "".join(entry.text for entry in found) + _end(ours), said


def _place(found: list[Entry], key: str, earlier: list[str]) -> int:
    """Where a new key goes: behind the nearest of those that stand before it upstream."""
    keys = [entry.key for entry in found]
    place = next((keys.index(name) + 1 for name in reversed(earlier) if name in keys), 0)
    while "." not in key.rstrip(".") and place < len(keys) and "." in keys[place].rstrip("."):
        place += 1  # not into the middle of a section
    return place


def entries_of(text: str) -> list[Entry]:
    """The keys of params.yaml in their order."""
    found: list[Entry] = []
    above, section = "", ""
    for line in text.splitlines():
        match = KEY.match(line)
        if not line.strip() or line.lstrip().startswith("#"):
            above += f"{line}\n"
        elif match and (section or not match[1]):
            end = len(HEAD.match(line)[0])  # type: ignore[index]
            head, comment = line[:end], line[end:]
            is_section = not match[1] and head.rstrip().endswith(":")
            if not match[1]:
                section = f"{match[2]}." if is_section else ""
            key = section if is_section else (section if match[1] else "") + match[2]
            found.append(Entry(key, above, head, comment, ""))
            above = ""
        elif not found:
            above += f"{line}\n"
        else:
            last = found[-1]
            if line.startswith(("- ", "-\n")):  # a list below a key at the left edge: no section
                last, section = replace(last, key=last.key.rstrip(".")), ""
            found[-1] = replace(last, below=f"{last.below}{above}{line}\n")
            above = ""
    return found


def _end(text: str) -> str:
    """What stands behind the last key."""
    length = sum(len(entry.text) for entry in entries_of(text))
    return text[length:]


def aligned(pipeline: str, theirs: str) -> str:
    """dvc.yaml with the code and params that `theirs` declares for the stages that both have:
    `python -m src.deps` writes these lists anew in any case."""
    for stage, entry in deps.entries(theirs):
        code = [str(dep) for dep in entry.get("deps") or [] if str(dep).startswith("src/")]
        keys = [item for param in entry.get("params") or [] for item in _items(param)]
        pipeline = deps.with_items(pipeline, stage, "deps", code, "src/")
        pipeline = deps.with_items(pipeline, stage, "params", keys, "")
    return pipeline


def _items(param: object) -> list[str]:
    if not isinstance(param, dict):
        return [str(param)]
    return [f"{file}: [{', '.join(map(str, names))}]" for file, names in param.items()]
