"""Whether labels name one class a sample: numbers to predict and lists of labels are refused.

A class may be called `3`, `2.8`, `hot dog` or `Smith, John`, so each rule wants more than a number
or a separator, and its line says how to write names that it took for something else.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from src.plumbing.errors import InputError

NUMBER = re.compile(r"\s*[-+]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][-+]?[0-9]+)?\s*")
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,14})([.,]0*)?")  # 007 is a name
GAPS = 1.2  # of whole numbers, from the lowest to the highest for each that is there (choice)
MOST_FRACTIONS = 20  # names of classes such as 2.8 and 5.6 that each have some samples (choice)
PER_CLASS = 3  # samples on average: a class needs one in each split
# Between the labels of a list, and how a line calls it. Names of classes rarely have the first two.
SEPARATORS = {"|": "'|'", ";": "';'", ",": "commas", " ": "blanks"}
RARE = "|;"
AROUND = " []{}()'\""  # a list and its labels, as Python and JSON write them
LONGEST = 60  # characters of a label in a line
YES = {"1", "1.0", "true", "yes"}
FLAGS = {*YES, "0", "0.0", "-1", "-1.0", "false", "no", ""}
ONE_CLASS = "and this project trains one class a sample"


def require_one_class(samples: Mapping[str, int], where: str) -> None:
    """InputError if labels are quantities (regression) or lists of labels (multi-label). `samples`:
    how many have each label; `where` begins the line."""
    if fractions := _quantities(samples):
        shown = " and ".join(fractions[:2])
        raise InputError(
            f"{where} holds {len(samples)} different numbers for {sum(samples.values())} samples, "
            f"such as {shown}: that is a quantity (regression), {ONE_CLASS}: write the name of a "
            f"range in its place, such as 'low'; numbers that are names of classes pass as text, "
            f"such as 'v{fractions[0]}'"
        )
    for separator, called in SEPARATORS.items():
        if found := _list_of_labels(samples, separator):
            found = found if len(found) <= LONGEST else f"{found[:LONGEST]} ..."
            raise InputError(
                f"{where} holds several labels a sample, such as '{found}' (multi-label, separated "
                f"by {called}), {ONE_CLASS}: keep one label, or write yes or no for one of them; "
                f"if '{found}' is the name of one class, write it without {called}"
            )


def _quantities(samples: Mapping[str, int]) -> list[str]:
    """The labels with a fraction, sorted, if nearly all labels are numbers and too many or too rare
    to be classes. Whole numbers are classes, also as 1.0: nothing tells them apart."""
    numbers = {
        label: float(label.replace(",", ".")) for label in samples if NUMBER.fullmatch(label)
    }
    fractions = sorted(
        label for label, x in numbers.items() if math.isfinite(x) and not x.is_integer()
    )
    # Beside the numbers may stand a few words for missing ones; beside fractions whole numbers.
    if 10 * len(numbers) < 9 * len(samples) or 3 * len(fractions) < len(samples):
        return []
    few = sum(samples.values()) < PER_CLASS * len(samples)
    return fractions if few or len(samples) > MOST_FRACTIONS else []


def whole_numbers(samples: Mapping[str, int]) -> str:
    """A line if classes look like a quantity in whole numbers, such as an age, which nothing tells
    from classes for sure: they are many, and have gaps or fewer samples than splits. Else empty."""
    labels = filter(WHOLE.fullmatch, samples)
    numbers = sorted(float(label.replace(",", ".")) for label in labels)
    if len(numbers) < len(samples) or len(numbers) <= MOST_FRACTIONS:
        return ""
    total, has_gaps = sum(samples.values()), numbers[-1] - numbers[0] >= GAPS * len(numbers)
    if not has_gaps and total >= PER_CLASS * len(samples):
        return ""
    return (
        f"the classes are {len(numbers)} different whole numbers from {numbers[0]:.15g} to "
        f"{numbers[-1]:.15g} for {total} samples: if that is a quantity (regression), write the "
        "name of a range in its place, such as 'low', since each number is a class of its own here"
    )


def _list_of_labels(labels: Iterable[str], separator: str) -> str | None:
    """A label that is a list, if the labels are lists with `separator`: they share parts, and

    - with '|' or ';' a part is a label of its own, or there are as many labels as parts;
    - with commas and blanks, which names have too, half of the lists consist of labels of their
      own, or there are twice as many labels as parts, of three lengths.
    """
    split = {
        label: frozenset(filter(None, (part.strip(AROUND) for part in label.split(separator))))
        for label in labels
    }
    lists = {label: parts for label, parts in split.items() if len(parts) > 1}
    if not lists:
        return None
    sets = set(split.values())
    alone = frozenset().union(*(parts for parts in sets if len(parts) == 1))
    parts = frozenset().union(*sets)
    if separator in RARE:
        told = [label for label in lists if lists[label] & alone]
        are_lists = bool(told) or len(sets) >= len(parts)
    else:
        told = [label for label in lists if lists[label] <= alone]
        lengths = Counter(len(found) for found in sets)
        many = len(sets) >= 2 * len(parts) and len(lengths) > 2
        are_lists = 2 * len(told) >= len(lists) or many
    return min(told or lists, key=lambda label: (len(label), label)) if are_lists else None


def columns_of_flags(table: Iterable[Sequence[str]], empty_is_no: bool = False) -> list[str]:
    """The names of the columns that hold 0 and 1 alone, as the first line of a table has them;
    with `empty_is_no` also of those with 1 and empty cells."""
    rows = iter(table)
    header = next(rows)
    seen: list[set[str]] = [set() for _ in header]
    for row in rows:
        for values, text in zip(seen, row, strict=False):
            if values <= FLAGS:
                values.add(text.strip().lower())
    return [
        name
        for name, values in zip(header, seen, strict=True)
        if values <= FLAGS and len(values if empty_is_no else values - {""}) > 1
    ]
