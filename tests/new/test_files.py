"""The files of a project: what is left of the template's speaks of nothing that went."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from new import files
from src.base.imports import ROOT
from src.plumbing import upstream
from src.plumbing.errors import InputError

NAME = "leaf-diseases"


def listed() -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    found = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return [name for name in found if (ROOT / name).is_file()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in listed():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    files.write_project(tmp_path, NAME, "a" * 40, 'a "folder"')
    return tmp_path


def test_what_is_left_speaks_of_nothing_that_went(project: Path) -> None:
    kept = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    went = {name for name in set(listed()) - kept if "/" in name}
    went = {name for name in went if not name.startswith("results/")}  # they come again
    # A folder beside `tests.yours`, a target of the Makefile, and the word itself but for DVC's.
    spoken = re.compile(
        r"make (test-slow|torture|zoo)\b|\b(tests|bench)[/.](?!yours|test_project)\w|"
        r"(?i:template)(?!: bar_horizontal)"
    )
    assert len(went) > 100
    for name in kept:
        text = (project / name).read_text(errors="replace")
        assert not spoken.search(text), f"{name}: {spoken.search(text)}"
        assert [path for path in went if path in text] == [], name
    names = {Path(name).name for name in kept if name.startswith("docs/")}
    assert {f"{name}.md" for name in ("checks", "experiments", "params", "upgrading")} <= names
    for page in project.rglob("*.md"):
        for link, _ in files.LINK.findall(page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


def test_the_name_and_the_note(project: Path) -> None:
    text = (project / "pyproject.toml").read_text()
    template = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = upstream.Note(NAME, template["version"], "a" * 40, 'a "folder"')
    assert upstream.read_note(text) == expected
    assert upstream.read_note((ROOT / "pyproject.toml").read_text()) is None
    assert (project / "README.md").read_text().startswith(f"# {NAME}\n")
    assert "Looks at test so far: 0" in (project / "docs/experiments.md").read_text()
    assert json.loads((project / ".devcontainer/devcontainer.json").read_text())["image"]
    with pytest.raises(InputError, match=r"its \[project\] or \[tool\.upstream\] cannot be read"):
        upstream.read_note(text.replace("commit =", "comit ="))


def test_each_target_that_is_left_can_be_made(project: Path) -> None:
    printed = subprocess.check_output(["make", "help"], cwd=project, text=True)
    shown = re.findall(r"(?m)^  make (\S+)", printed)
    [phony] = re.findall(r"(?m)^\.PHONY: (.*)$", (project / "Makefile").read_text())
    assert shown == phony.split()
    for target in shown:
        subprocess.run(["make", "--dry-run", target], cwd=project, check=True, capture_output=True)


PAGE = """\
```{include} README.md
```

# Checks

What they are, see [params](params.md).

## Score

`make zoo` gives it:

| one | two |
|---|---|
| 1 | 2 |

### Deeper

More.

## Use

Often.

The zoo itself is in
`tests/zoo`.

Rarely.

- one, see [that](gone.md)
- more, see [there](#deeper)
- two
  lines
- `make torture`
  does it

```console
$ make zoo
```

```console
$ make lint
$ make test-slow  # later
```

## Contribute

- `tests/pipeline/clone.py`
"""
CLEAN = """\
```{include} README.md
```

# Checks

What they are, see [params](params.md).

## Use

Often.

Rarely.

- two
  lines

```console
$ make lint
```
"""


def test_a_page_loses_what_is_gone_and_what_that_leaves_empty(tmp_path: Path) -> None:
    (tmp_path / "params.md").touch()
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert files.cleaned(page, {(page.resolve(), "deeper")}) == CLEAN
    page.write_text("# Make it yours\n\n`make new` does it.\n\nMore.\n")
    assert files.cleaned(page, set()) == ""


def test_a_file_that_is_no_longer_as_it_was_is_named(project: Path) -> None:
    with pytest.raises(SystemExit, match=r"Makefile: nothing is like nosuch, which new/files\.py"):
        files.edit(project / "Makefile", ("nosuch", "y"))
