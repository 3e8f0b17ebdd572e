"""Mistakes in src/yours end in a line that names the place, whichever command meets them."""

from pathlib import Path

import pytest

from tests.conftest import python, set_params

LOSS = Path("src/yours/loss.py")
WRITTEN = """
import torch
from torch.nn import functional


def own_loss(logits, targets, params):
    return functional.cross_entropy(logits, targets)
"""


def ending(project: Path, *arguments: str) -> str:
    """The only line on stderr of a command that ends with code 2."""
    ended = python(project, *arguments)
    assert ended.returncode == 2, ended.stderr
    [line] = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("def own_loss(", "def my_loss(", "src/yours/loss.py has no own_loss, which the project"),
        ("targets)\n", "targets\n", "src/yours/loss.py:7: '(' was never closed"),
        ("import torch\n", "import torch\nnonsense\n", "src/yours/loss.py:3: NameError: name 'non"),
        ("entropy(", "entropi(", "AttributeError: module 'torch.nn.functional' has no attribute"),
    ],
)
@pytest.mark.slow(seconds=6)
def test_overfit_check_names_the_line(old: str, new: str, line: str, copied: Path) -> None:
    set_params(copied, loss="own")
    (copied / LOSS).write_text(WRITTEN.replace(old, new, 1))
    found = ending(copied, "-m", "src.overfit_check")
    assert "src/yours/loss.py" in found
    assert line in found


@pytest.mark.parametrize("tool", ["src.prepare", "src.where"])
def test_a_broken_file_of_keys_stops_every_command(tool: str, project: Path) -> None:
    path = project / "src/yours/params.py"
    path.write_text(path.read_text() + "KEYS[\n")
    last = len(path.read_text().splitlines())
    assert ending(project, "-m", tool) == f"src/yours/params.py:{last}: '[' was never closed"
    path.write_text("KEYS = {'a': integer(0)}\n")
    line = "src/yours/params.py:1: NameError: name 'integer' is not defined"
    assert ending(project, "-m", tool) == line


def test_a_key_of_the_machine_is_none_for_own_code(project: Path) -> None:
    text = (project / LOSS).read_text()
    (project / LOSS).write_text(f'{text}\n\ndef more(params):\n    params["machine.workers"]\n')
    line = ending(project, "-m", "src.deps")
    assert line.startswith("src/yours/loss.py:")
    assert "machine.workers says where and how a stage runs" in line
