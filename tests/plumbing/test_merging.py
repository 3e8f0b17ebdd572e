"""params.yaml and dvc.yaml with what is new upstream, where a merge line by line would fail."""

import pytest
import yaml

from src.base.imports import ROOT
from src.plumbing import merging
from tests import template

BASE = """\
# What an experiment varies.

seed: 0           # integer >= 0: a start
lr: 0.001         # number > 0: learning rate
classes: none     # none | list

prepare:          # how samples become data
  size: 32        # pixels
  note: 'a # b'   # quoted
"""


def merged(theirs: str, ours: str) -> tuple[str, list[str]]:
    return merging.merged_params(BASE, theirs, ours)


def test_values_stay_and_a_new_key_comes_in_its_place() -> None:
    theirs = BASE.replace("classes:", "decay: 0.5  # number: a factor\nclasses:")
    theirs = theirs.replace("  note:", "  fit: crop  # crop | pad\n  note:")
    ours = BASE.replace("0.001  ", "3e-4   ").replace(" none     #", "\n- 1\n- 2\n#")
    text, said = merged(theirs, ours)
    expected = ours.replace("classes:", "decay: 0.5  # number: a factor\nclasses:")
    assert text == expected.replace("  note:", "  fit: crop  # crop | pad\n  note:")
    assert said == [
        "new      decay: 0.5 # number: a factor",
        "new      prepare.fit: crop # crop | pad",
    ]


def test_own_keys_stay_and_keys_that_are_gone_go() -> None:
    theirs = BASE.replace("lr: 0.001         # number > 0: learning rate\n", "")
    ours = BASE.replace("0.001", "0.5  ").replace("lr:", "mine: [1, 2]  # my own\nlr:")
    text, said = merged(theirs, ours)
    assert text == theirs.replace("classes:", "mine: [1, 2]  # my own\nclasses:")
    assert said == ["gone     lr (here it was 0.5)"]
    theirs = BASE.partition("\nprepare:")[0]
    text, said = merged(theirs, BASE + "  mine: 1\n")
    assert yaml.safe_load(text)["prepare"] == {"mine": 1}
    text, said = merged(theirs, BASE)
    assert text == theirs
    assert len(said) == 2


def test_comments_follow_and_defaults_do_not() -> None:
    theirs = BASE.replace("learning rate", "the learning rate").replace("0.001", "0.002")
    theirs = theirs.replace("# What an", "# All that an").replace("# quoted", "# in quotes")
    theirs = theirs.replace("# a start", "# the start")
    ours = BASE.replace("# pixels", "# our pixels").replace("0.001  ", "0.1    ")
    ours = ours.replace("seed: 0  ", "seed: 17 ")
    text, said = merged(theirs, ours)
    expected = theirs.replace("# pixels", "# our pixels").replace("0.002  ", "0.1    ")
    assert text == expected.replace("seed: 0  ", "seed: 17 ")
    assert said == ["default  lr: 0.001 -> 0.002; here it stays 0.1"]
    assert "seed: 17          # integer >= 0: a start" in text


def test_a_section_may_be_left_alone() -> None:
    """That of one's own keys, whose types stand in a file that the project has changed."""
    theirs = BASE.replace("  size: 32        # pixels\n", "  other: 1  # new\n")
    theirs = theirs.replace("seed: 0", "first: 1\nseed: 0")
    ours = BASE.replace("  size: 32        # pixels\n", "  mine: 3\n")
    text, said = merging.merged_params(BASE, theirs, ours, "prepare.")
    assert text == ours.replace("seed: 0", "first: 1\nseed: 0")
    assert said == ["new      first: 1"]


def test_a_new_section_comes_whole() -> None:
    theirs = BASE + "\nserve:  # how it answers\n  port: 1  # integer\n"
    ours = BASE.replace("\nprepare:", "own: 1  # mine\n\nprepare:")
    text, said = merged(theirs, ours)
    assert text == ours + "\nserve:  # how it answers\n  port: 1  # integer\n"
    assert said == ["new      serve.port: 1 # integer"]
    # A flat key that stands behind a section upstream is not put into the section.
    theirs = BASE + "last: 1\n"
    text, _ = merged(theirs, BASE + "  mine: 2\n")
    assert text == BASE + "  mine: 2\nlast: 1\n"


@pytest.mark.parametrize("text", [template.params_text(), BASE, "---\n" + BASE + "# the end\n"])
def test_a_file_that_nobody_changed_stays_as_it_is(text: str) -> None:
    assert merging.merged_params(text, text, text) == (text, [])


def test_lists_that_follow_the_code_are_made_equal_and_all_else_stays() -> None:
    now = (ROOT / "dvc.yaml").read_text()
    own = "  own:\n    cmd: python -m src.own\n    deps:\n      - src/own.py\n"
    here = now.replace("      - seed\n", "      - seed\n      - mine\n")
    here = here.replace(
        "      - src/train.py\n", "      - src/yours/more.py\n      - src/train.py\n"
    )
    here = here.replace("\nplots:", f"\n{own}\nplots:")
    assert merging.aligned(here, now) == now.replace("\nplots:", f"\n{own}\nplots:")
