"""Bring dvc.yaml and docs/reference/params.md up to date with the code: `python -m src.deps`.

The deps and params of the stages are what their code imports and reads; the page of the params is
made of the comments in params.yaml and of the types in src/plumbing/schema.py.
"""

import re
import sys

from src.base.files import write_text
from src.base.imports import ROOT
from src.plumbing import command, deps, params
from src.plumbing.schema import SCHEMA

LINE = r"(?m)^( *)(\w+): *([^#\n]*?) *(?:# (.+))?$"  # indent, key, value, comment
TABLE = "\n| key | accepts | what it is |\n|---|---|---|\n"


def main() -> None:
    """The command line."""
    command.parser("deps", __doc__).parse_args()
    params.load(ROOT)
    for name, rewrite in (("dvc.yaml", deps.rewrite), ("docs/reference/params.md", with_tables)):
        file = ROOT / name
        if file.exists():
            before = file.read_text(encoding="utf-8")
            after = rewrite(before)
            write_text(file, after)
            print(f"{name}: {'nothing to change' if after == before else 'written'}")


def with_tables(page: str) -> str:
    """The page of the params, whose text is `page`, with today's tables below its introduction. A
    comment `integer >= 0: what it is` gives two cells; before any other one stands what the schema
    says."""
    text, section = page.partition(TABLE)[0] + TABLE, ""
    file = (ROOT / params.FILE).read_text(encoding="utf-8")
    for indent, name, value, comment in re.findall(LINE, file):
        if not indent and not value:
            section = f"{name}."
            text += f"\n## {name}{comment and ': '}{comment}\n{TABLE}"
            continue
        key = (section if indent else "") + name
        found = re.match(r"([^']*?): (.*)", comment)
        cells = (f"`{key}`", *(found.groups() if found else (SCHEMA[key].expects, comment)))
        row = (cell.replace("|", r"\|").replace("<", "&lt;") for cell in cells)
        text += f"| {' | '.join(row)} |\n"
    return text


if __name__ == "__main__":
    sys.exit(command.guarded(main))
