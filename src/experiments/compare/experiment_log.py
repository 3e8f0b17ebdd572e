"""docs/experiments.md, the log that people read, and its count of the looks at test."""

import re
from datetime import date
from pathlib import Path

from src.base.files import write_text
from src.experiments.compare import text
from src.experiments.compare.report import Report
from src.plumbing.errors import InputError

FILE = Path("docs/experiments.md")
COUNT = re.compile(r"(?m)^Looks at test so far: (\d+)$")


def count_look() -> int:
    """Count one more look at test: the number with it. InputError if the file has no count."""
    content = _read()
    found = COUNT.search(content)
    if found is None:
        raise InputError(f"{FILE} needs a line `Looks at test so far: 0`, where they are counted")
    number = int(found[1]) + 1
    write_text(FILE, content[: found.start(1)] + str(number) + content[found.end(1) :])
    return number


def append(report: Report, why: str) -> None:
    """Add an entry for each comparison of the report at the end of the file."""
    content = _read().rstrip("\n")
    for item in report.comparisons:
        listed = "; ".join(" ".join(line.split()) for line in text.changed(item))
        images = " ".join(text.on_images(item).split())
        content += (
            f"\n\n## {date.today().isoformat()}: {item.second} against {item.first}\n\n"
            f"- Tried: {listed or 'nothing that dvc.lock knows'}\n"
            f"- Why: {' '.join(why.split())}\n"
            f"- Came out: {text.headline(item, report)}. {text.capital(images)}"
        )
    write_text(FILE, content + "\n")


def _read() -> str:
    try:
        return FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{FILE} is missing: `git checkout {FILE}` brings it back") from None
