"""The files of a project, made of those of the template: `python -m new.files NAME COMMIT
ORIGIN` in a folder with the files of that commit.

What comes out follows from the files and the arguments alone. So `make upgrade` can do the same to
the version that a project was made from and to a newer one: what differs between the two is what
the project gets, without the edits that are made here.
"""

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Set
from pathlib import Path

PROJECT = Path("new/project")  # files that every project gets, in their places
NAME = "PROJECT-NAME"  # stands in them for its name
REMOVED = (
    "bench",
    "docs/changelog.md",
    "docs/contributing.md",
    "dvc.lock",
    "recipes/digits_*.yaml",
    "requirements/team.lock",
    "results",
    "new",
)
TESTS_KEPT = ("__init__.py", "yours")
TARGETS = "test-slow|torture|zoo|new"  # of the Makefile
AGAIN = """\
new:
	@echo 'make new: this is a project of its own already: pyproject.toml has its name' >&2; exit 2
"""
# What pages say of things that are no longer there.
GONE = re.compile(
    rf"\bmake ({TARGETS})\b|\bbench[/.]|\btests[/.](?!yours|test_project)\w|\bdigits_\w|"
    r"\btemplate\b",
    re.IGNORECASE,
)
ITEM = re.compile(r"\s*([-*]|\d+\.) ")
LINK = re.compile(r"\]\(([^)\s#]*)#?([^)\s]*)[^)]*\)")


def main() -> None:
    """The command line; called by `make new` and `make upgrade`."""
    name, commit, origin = sys.argv[1:]
    write_project(Path.cwd(), name, commit, origin)


def write_project(root: Path, name: str, commit: str, origin: str) -> None:
    """Turn the template in `root` into the project `name`, which notes where it came from."""
    files = {
        path.relative_to(root / PROJECT): path
        for path in (root / PROJECT).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    contents = {place: (path.read_text(), path.stat().st_mode) for place, path in files.items()}
    edit(root / "pyproject.toml", *_pyproject(root, name, commit, origin))
    edit(root / "Makefile", *_makefile())
    # The log of experiments begins anew.
    edit(root / "docs/experiments.md", (r"\n## (?s:.*)", ""), (r"so far: \d+", "so far: 0"))
    for pattern in REMOVED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (root / "tests").iterdir():
        if path.name not in TESTS_KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for place, (text, mode) in contents.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text.replace(NAME, name))
        (root / place).chmod(mode)
    clean_pages(root)


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Replace patterns in a file, each of which must be there: else the file has changed, and what
    is written here with it."""
    text = path.read_text()
    for pattern, new in changes:
        text, count = re.subn(pattern, lambda _, new=new: new, text)  # type: ignore[misc]
        if not count:
            raise SystemExit(f"{path}: nothing is like {pattern}, which new/files.py replaces")
    path.write_text(text)


def _pyproject(root: Path, name: str, commit: str, origin: str) -> Iterator[tuple[str, str]]:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    about = "Image-classification experiments: reproduced, compared, resumed, explained."
    yield r'(?m)^name = ".*"$', f'name = "{name}"'
    yield r'(?m)^version = ".*"$', 'version = "0.1.0"'
    yield r'(?m)^description = ".*"$', f'description = "{about}"'
    yield (
        r"(?m)^\[dependency-groups\]$",
        "# What this project was made from and follows: read and written by `make upgrade`.\n"
        "[tool.upstream]\n"
        f"version = {json.dumps(version)}\ncommit = {json.dumps(commit)}\n"
        f"origin = {json.dumps(origin)}\n\n[dependency-groups]",
    )
    yield r', "bench", "new"\]', "]"
    yield r"(?m)^team = .*\n", ""


def _makefile() -> Iterator[tuple[str, str]]:
    yield rf"(?m)^(?:[^\n]+\n)*(?:{TARGETS}):(?:.*\n)(?:[^\n]+\n)*\n?", ""
    yield rf" (?:{TARGETS})(?= )(?=.*\n\n#)", ""
    yield r".*team\.lock.* \\\n.*--group team\n", ""
    yield r"\Z", f"\n{AGAIN}"


def clean_pages(root: Path) -> None:
    """Take out of all pages what speaks of things that are no longer there, and whole pages and
    pictures that are about nothing else, until no page changes."""
    at_start, is_changed = _headings(root), True
    while is_changed:
        is_changed, lost = False, at_start - _headings(root)
        for path in _pages(root):
            before, text = path.read_text(), cleaned(path, lost)
            is_changed |= text != before
            path.write_text(text) if text else path.unlink()
    shown = {
        (path.parent / link).resolve()
        for path in _pages(root)
        for link, _ in _links(path.read_text())
    }
    for image in (root / "docs").rglob("*.png"):
        if image.resolve() not in shown:
            image.unlink()


def _pages(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.md") if ".venv" not in path.parts)


def _headings(root: Path) -> set[tuple[Path, str]]:
    """(page, anchor) of all headings, as links name them."""
    return {
        (path.resolve(), re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
        for path in _pages(root)
        for title in re.findall(r"(?m)^#+ (.+)$", path.read_text())
    }


def cleaned(page: Path, lost: Set[tuple[Path, str]]) -> str:
    """The text of a page without what is gone: rows, items, paragraphs, lines of code; sections
    that begin with it; empty if that is the whole page. `lost`: headings that went, as (page,
    anchor)."""
    blocks = list(_blocks(page.read_text()))
    gone = [_is_gone(page, text, lost) for _, text in blocks]
    fences = [number for number, (_, text) in enumerate(blocks) if text.startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=False):
        if end > start + 1 and all(gone[start + 1 : end]):
            gone[start] = gone[end] = True
    for index, (kind, text) in enumerate(blocks):
        if kind != "heading":
            continue
        level = len(text) - len(text.lstrip("#"))
        inside = []
        for number in range(index + 1, len(blocks)):
            kind, text = blocks[number]
            if kind == "heading" and len(text) - len(text.lstrip("#")) <= level:
                break
            inside.append(number)
        said = [number for number in inside if blocks[number][0] != "blank"]
        if gone[index] or (said and (gone[said[0]] or all(gone[number] for number in said))):
            for number in (index, *inside):
                gone[number] = True
    kept = [text for (_, text), is_gone in zip(blocks, gone, strict=True) if not is_gone]
    text = "".join(kept)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n" if text.strip() else ""


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of the parts of a page, each of which may go alone."""
    kind, block, is_code = "", "", False
    for line in text.splitlines(keepends=True):
        fence = line.startswith("```")
        if fence or is_code:
            new = "code"  # line by line
        elif not line.strip():
            new = "blank"
        elif line[0] in "#|":
            new = "heading" if line[0] == "#" else "row"
        else:
            new = "item" if ITEM.match(line) else "text"
        is_code ^= fence
        if new == "text" and kind in ("text", "item"):
            block += line
            continue
        if block:
            yield kind, block
        kind, block = new, line
    yield kind, block


def _is_gone(page: Path, text: str, lost: Set[tuple[Path, str]]) -> bool:
    """Whether a part of a page speaks of what went, or has a link there."""
    if GONE.search(text):
        return True
    places = ((page.parent / link if link else page, anchor) for link, anchor in _links(text))
    return any(not place.exists() or (place.resolve(), anchor) in lost for place, anchor in places)


def _links(text: str) -> list[tuple[str, str]]:
    """The links inside the project: (path from the page, empty for the page itself; anchor)."""
    return [(link, anchor) for link, anchor in LINK.findall(text) if "://" not in link]


if __name__ == "__main__":
    main()
