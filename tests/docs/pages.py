"""The pages that people read, and the commands and links on them."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from src.base.imports import ROOT

SHELL = ("console", "shell", "sh", "bash")
# What a command in a table begins with; `dvc.lock` and the like are not commands.
WORDS = ("curl", "dvc", "export", "git", "make", "mlflow", "python", "source", "touch", "uv")


def pages(*patterns: str) -> list[str]:
    """The pages that match, as paths below the root; all of them without a pattern."""
    patterns = patterns or ("README.md", "docs/**/*.md", "data/README.md", "*/README.md")
    found = {path.relative_to(ROOT).as_posix() for name in patterns for path in ROOT.glob(name)}
    return sorted(found - {"docs/index.md"})  # which includes docs/README.md


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text_of(page))


def commands(page: str) -> list[str]:
    """What stands behind `$ ` in shell blocks, and the commands in tables, without comments."""
    found: list[str] = []
    in_cell = False
    for token in tokens(page):
        if token.type == "fence" and token.info in SHELL:
            found += _prompted(token.content)
        elif token.type in ("td_open", "td_close"):
            in_cell = token.type == "td_open"
        elif token.type == "inline" and in_cell:
            codes = [child.content for child in token.children or () if child.type == "code_inline"]
            found += [code for code in codes if code.split()[0] in WORDS and " " in code]
    return found


def _prompted(block: str) -> Iterator[str]:
    """A line that ends in a backslash or a pipe goes on in the next one."""
    for command in re.findall(r"(?m)^\$ ((?:.*[\\|]\n)*.*)$", block):
        yield re.sub(r"(?m) +# .*$", "", command)


def section(page: str, heading: str) -> list[str]:
    """The commands of the shell blocks below one heading."""
    [body] = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text_of(page))
    return list(_prompted(body))


def blocks(page: str, language: str) -> list[str]:
    return [
        token.content for token in tokens(page) if token.type == "fence" and token.info == language
    ]


def links(page: str) -> Iterator[str]:
    """Where the links and images of a page lead to."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield str(child.attrs.get("href") or child.attrs.get("src"))


def anchors(page: str) -> set[str]:
    """The headings of a page as GitHub names them in addresses."""
    found = set()
    for token, inline in pairwise(tokens(page)):
        if token.type == "heading_open":
            title = re.sub(r"[`*\[]|\]\(.*?\)|\]", "", inline.content).lower()
            found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


def place(page: str, link: str) -> Path:
    """The file or folder that a link of a page leads to."""
    return (ROOT / page).parent / link.partition("#")[0] if link[0] != "#" else ROOT / page
