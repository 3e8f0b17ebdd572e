"""Both ends of each range, as the texts that users read state them, and the rules between keys."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from src.base.imports import ROOT
from src.plumbing import params
from src.plumbing.errors import InputError
from tests import template
from tests.conftest import set_params
from tests.template import SCHEMA

# Keys with neither a range nor a list of all that they accept, and what they hold.
WITHOUT_RANGE = {
    "model": "a name, of more nets than a list could hold",
    "optimizer": "a name, of more optimizers than a list could hold",
    "best_by": "a metric of the template or of yours",
    "prepare.source": "a name, with that of any data set after torchvision:",
    "machine.device": "a name, with the number of any GPU after cuda:",
    "weights": "a path",
    "prepare.path": "a path",
    "prepare.csv_file": "a path",
    "prepare.csv_path_column": "a name in the user's table",
    "prepare.csv_path_pattern": "a path",
    "prepare.leave_out": "names of classes",
    "prepare.merge": "names of classes",
    "prepare.csv_label_column": "a name in the user's table",
    "prepare.csv_split_column": "a name in the user's table",
    "prepare.csv_group_column": "a name in the user's table",
    "prepare.csv_encoding": "a name that Python knows",
    "overfit_check.waive": "sentences",
}
FAR = 1000  # stands for the end of a range that has none


@dataclass(frozen=True)
class Range:
    """Numbers or, with `step` 1, integers; an end that is not there is infinite."""

    low: float
    high: float = math.inf
    low_is_in: bool = True
    high_is_in: bool = True
    step: int = 0

    @property
    def accepted(self) -> list[float]:
        """The ends, or next to an end that is not in the range, the nearest number that is."""
        low = self.low if self.low_is_in else self._next(self.low, math.inf)
        if math.isinf(self.high):
            return [low, FAR]
        return [low, self.high if self.high_is_in else self._next(self.high, -math.inf)]

    @property
    def refused(self) -> list[float]:
        """The nearest numbers outside, and the ends that are not in the range."""
        found = [self._next(self.low, -math.inf)] + ([] if self.low_is_in else [self.low])
        if math.isfinite(self.high):
            found += [self._next(self.high, math.inf)] + ([] if self.high_is_in else [self.high])
        return found

    def _next(self, value: float, towards: float) -> float:
        if self.step:
            return value + math.copysign(self.step, towards)
        return math.nextafter(value, towards)


def range_in(text: str) -> Range | None:
    """The range that a text for users states, such as `an integer in 1..4096`; None without one."""
    end = r"([0-9.]*[0-9])"
    if found := re.search(rf"\binteger >= {end}", text):
        return Range(float(found[1]), step=1)
    if found := re.search(rf"\binteger (?:in )?{end}\.\.{end}", text):
        return Range(float(found[1]), float(found[2]), step=1)
    if found := re.search(rf"\bnumber >(=?) {end}", text):
        return Range(float(found[2]), low_is_in=found[1] == "=")
    if found := re.search(rf"\bnumber between {end} and {end}", text):
        return Range(float(found[1]), float(found[2]), low_is_in=False, high_is_in=False)
    if found := re.search(rf"\bnumber in ([\[(]){end}, {end}([\])])", text):
        return Range(float(found[2]), float(found[3]), found[1] == "[", found[4] == "]")
    return None


RANGES = {key: found for key in SCHEMA if (found := range_in(SCHEMA[key].expects))}


def written(key: str, number: float) -> str:
    text = str(int(number)) if RANGES[key].step else repr(float(number))
    return f"[{text}]" if SCHEMA[key].many else text


def test_every_other_key_lists_what_it_accepts_or_holds_text() -> None:
    for key in set(SCHEMA) - set(RANGES) - set(WITHOUT_RANGE):
        choices = SCHEMA[key].choices
        assert SCHEMA[key].expects in ("one of " + ", ".join(choices), " or ".join(choices)), key
    assert not set(RANGES) & set(WITHOUT_RANGE)
    assert set(WITHOUT_RANGE) < set(SCHEMA)


@pytest.mark.parametrize("key", RANGES)
def test_both_ends_of_the_range(key: str) -> None:
    for number in RANGES[key].accepted:
        value = params.parse_override(key, written(key, number))
        assert value == ([number] if SCHEMA[key].many else number)
    for number in RANGES[key].refused:
        with pytest.raises(InputError) as caught:
            params.parse_override(key, written(key, number))
        line = str(caught.value)
        assert line.startswith(f"params.yaml: {key} must be {SCHEMA[key].expects}, got "), number
        assert "\n" not in line


def comment_of(key: str) -> str:
    """What params.yaml says beside a key."""
    section, _, name = key.rpartition(".")
    text = (ROOT / "params.yaml").read_text()
    start = text.index(f"\n{section}:") if section else 0
    found = re.search(rf"(?m)^ *{name}:.*?# (.+)$", text[start:])
    assert found
    return found[1]


@pytest.mark.parametrize("key", SCHEMA)
def test_the_comment_states_the_same_range_or_choices(key: str) -> None:
    comment = comment_of(key)
    assert range_in(comment) == RANGES.get(key)
    assert all(re.search(rf"\b{re.escape(one)}\b", comment) for one in SCHEMA[key].choices)


def test_an_integer_has_at_most_18_digits() -> None:
    """Far above all that is meant, and within 64 bits."""
    assert params.parse("seed", "9" * 18) == 10**18 - 1
    with pytest.raises(InputError, match=r"params\.yaml: seed must be an integer >= 0, got '9999"):
        params.parse("seed", "9" * 19)


ABOVE = math.nextafter(1000, math.inf)
# Refused values, the line's beginning, the nearest accepted values, the words of the comments.
RULES: list[tuple[dict[str, Any], str, list[dict[str, Any]], dict[str, str]]] = [
    *(
        (
            {key: ABOVE},
            f"{key} must be at most 1000, got 1000",
            [{key: 1000}],
            {key: "at most 1000"},
        )
        for key in ("lr", "weight_decay")
    ),
    (
        {"class_weights": "[1, 1000000.1]"},
        "class_weights must be none, balanced, or a list of one number > 0 per class, got '1000000",
        [{"class_weights": "[1, 1e6]"}],
        {"class_weights": "at most 1000000"},
    ),
    (
        {"epochs": 3, "warmup": 3},
        "warmup must be shorter than the 3 epochs, got 3",
        [{"epochs": 3, "warmup": 2.999}],
        {"warmup": "less than epochs"},
    ),
    (
        {"epochs": 3, "freeze_epochs": 4},
        "freeze_epochs must be at most the 3 epochs, got 4",
        [{"epochs": 3, "freeze_epochs": 3}],
        {"freeze_epochs": "at most epochs"},
    ),
    (
        {"size": 8, "augment_crop": 8},
        "augment_crop must be below the 8 pixels of prepare.size, got 8",
        [{"size": 8, "augment_crop": 7}],
        {"augment_crop": "below prepare.size"},
    ),
    (
        {"val_share": 0.5, "test_share": 0.5},
        "prepare.val_share + prepare.test_share must leave samples to train on, got 1",
        [{"val_share": 0.5, "test_share": 0.499}],
        {
            "prepare.val_share": "less than 1 with test_share",
            "prepare.test_share": "less than 1 with val_share",
        },
    ),
    *(
        (
            {"source": source, "csv_label_column": "[cat, dog]"},
            f"prepare.csv_label_column must be one column with prepare.source {source}",
            [{"source": source}, {"source": "csv", "csv_label_column": "[cat, dog]"}],
            {"prepare.csv_label_column": "with source csv, list of columns"},
        )
        for source in ("parquet", "webdataset")
    ),
    (
        {"loss": "focal", "label_smoothing": 0.001},
        "label_smoothing must be 0 with loss focal",
        [{"loss": "focal"}, {"loss": "bce", "label_smoothing": 0.001}],
        {"label_smoothing": "0 with loss focal"},
    ),
    (
        {"loss": "own", "label_smoothing": 0.001},
        "label_smoothing must be 0 with loss own",
        [{"loss": "own"}],
        {"label_smoothing": "0 with loss focal or own"},
    ),
    (
        {"loss": "own", "class_weights": "balanced"},
        "class_weights must be none with loss own",
        [{"loss": "own"}],
        {"class_weights": "none with sampling balanced or loss own"},
    ),
    *(
        (
            {"sampling": "balanced", "class_weights": weights},
            "class_weights must be none with sampling balanced",
            [{"sampling": "balanced"}, {"class_weights": weights}],
            {"class_weights": "none with sampling balanced"},
        )
        for weights in ("balanced", "[1, 2]")
    ),
    (
        {"reading": "workers", "workers": 0},
        "machine.workers must be at least 1 for machine.reading workers",
        [{"reading": "workers", "workers": 1}, {"reading": "mapped", "workers": 0}],
        {"machine.workers": "at least 1 with reading workers"},
    ),
]


@pytest.mark.parametrize(
    ("refused", "line", "accepted", "said"), RULES, ids=[line for _, line, _, _ in RULES]
)
def test_a_rule_beyond_the_range_of_a_key(
    tmp_path: Path,
    refused: dict[str, Any],
    line: str,
    accepted: list[dict[str, Any]],
    said: dict[str, str],
) -> None:
    def load(values: dict[str, Any]) -> None:
        (tmp_path / "params.yaml").write_text(template.params_text())
        set_params(tmp_path, **values)
        params.load(tmp_path)

    with pytest.raises(InputError) as caught:
        load(refused)
    assert str(caught.value).startswith(f"params.yaml: {line}")
    assert "\n" not in str(caught.value)
    for values in accepted:
        load(values)
    for key, words in said.items():
        assert words in comment_of(key)
