"""What must hold for your own keys of params.yaml."""

from src.base.imports import ROOT
from src.plumbing import params
from src.yours.params import KEYS


def test_each_key_stands_in_params_yaml_with_a_value_that_it_accepts() -> None:
    assert set(params.own_params(params.load(ROOT))) == {f"yours.{name}" for name in KEYS}


def test_each_key_has_a_comment_from_which_its_row_of_the_page_is_made() -> None:
    lines = (ROOT / "params.yaml").read_text().partition("\nyours:")[2].splitlines()
    said = {line.partition(":")[0].strip() for line in lines if "  # " in line}
    assert set(KEYS) <= said
