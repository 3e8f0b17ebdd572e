"""Each command on a page is run or listed with the reason why not; each link leads somewhere."""

import re
from pathlib import Path

import pytest

from src.base.imports import ROOT
from tests.docs import pages
from tests.docs.listed import LISTED, NAMES, NOT_RUN, PROVEN_BY, RUN, TEAM

PAGES = pages.pages()
# These stand in the projects of users too, where what is of the template alone is gone.
KEPT = pages.pages("docs/tutorial.md", "docs/[her]*/*.md", "docs/README.md", "data/README.md")
WITH_COMMANDS = [page for page in PAGES if page.startswith(("README", "docs/", "data/", "recipes"))]


def commands(page: str) -> list[str]:
    """As they run: with a name in the place of NAME."""
    found = pages.commands(page)
    for placeholder, name in NAMES.items():
        found = [re.sub(rf"\b{placeholder}$", name, command) for command in found]
    return found


def test_every_command_is_run_or_listed() -> None:
    known = LISTED | {command for page in (*RUN, TEAM) for command in commands(page)}
    unknown = {page: set(commands(page)) - known for page in WITH_COMMANDS}
    assert {page: found for page, found in unknown.items() if found} == {}
    assert len(known) > 60


def test_what_is_listed_stands_on_a_page_and_once_in_the_list() -> None:
    assert LISTED - {command for page in WITH_COMMANDS for command in commands(page)} == set()
    assert len(LISTED) == len(NOT_RUN) + sum(map(len, PROVEN_BY.values()))


@pytest.mark.parametrize("test", PROVEN_BY)
def test_the_tests_that_prove_commands_are_there(test: str) -> None:
    file, name = test.split("::")
    assert f"\ndef {name}(" in (ROOT / file).read_text()


def test_shell_blocks_show_commands() -> None:
    """A block without a prompt would be read by nobody's test."""
    for page in WITH_COMMANDS:
        blocks = [block for shell in pages.SHELL for block in pages.blocks(page, shell)]
        assert all(block.startswith("$ ") for block in blocks), page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in pages.links(page):
        if link.startswith("https://"):
            continue
        target = pages.place(page, link)
        assert target.exists(), f"{link} of {page}"
        anchor = link.partition("#")[2]
        if anchor:
            there = target.resolve().relative_to(ROOT.resolve()).as_posix()
            assert anchor in pages.anchors(there), f"{link} of {page}"


@pytest.mark.parametrize("page", KEPT)
def test_pages_that_users_keep_speak_of_nothing_that_they_have_not(page: str) -> None:
    gone = [ROOT / name for name in ("bench", "tests", "docs/changelog.md", "docs/contributing.md")]
    for link in pages.links(page):
        if not link.startswith("https://"):
            place = pages.place(page, link).resolve()
            kept = ROOT / "tests/yours" in (place, *place.parents)
            assert kept or not {place, *place.parents} & set(gone), f"{link} of {page}"
            assert place != ROOT / "README.md", f"{page}: a user's README is another one"
    assert "template" not in pages.text_of(page).lower()


def test_pages_are_short_and_listed() -> None:
    lengths = {page: len(pages.text_of(page).splitlines()) for page in (*KEPT, "README.md")}
    assert lengths.pop("README.md") <= 180
    assert {page: length for page, length in lengths.items() if length > 150} == {}
    listed = {pages.place("docs/README.md", link) for link in pages.links("docs/README.md")}
    assert {ROOT / page for page in KEPT if page.startswith("docs/")} - listed == {
        ROOT / "docs/README.md"
    }


def test_the_code_of_own_parts_is_that_of_tests() -> None:
    """tests/pipeline/test_yours.py and tests/preparation/test_own.py run it."""
    tested = [*(ROOT / "tests").glob("*/own/*.py"), *(ROOT / "tests").glob("*/own_sources/*.py")]
    code = "\n".join(path.read_text() for path in tested)
    own = [page for page in KEPT if "/own-" in page and page not in RUN]
    shown = [block for page in own for block in pages.blocks(page, "python")]
    assert len(shown) > 2
    assert [block for block in shown if block not in code] == []


def test_what_is_read_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "# One `two`: [three](four.md)\n\n| a | b |\n|---|---|\n| `dvc.lock` | `dvc repro`, then "
        "`make ui` |\n\n```console\n$ one a \\\n    b   # why\noutput\n$ (two) |\n    three\n```\n"
    )
    assert pages.commands("page.md") == [
        "dvc repro",
        "make ui",
        "one a \\\n    b",
        "(two) |\n    three",
    ]
    assert list(pages.links("page.md")) == ["four.md"]
    assert pages.anchors("page.md") == {"one-two-three"}
