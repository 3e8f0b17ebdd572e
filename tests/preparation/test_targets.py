"""Numbers to predict and lists of labels are recognised; names of classes that look alike pass."""

import random
from collections import Counter
from itertools import product

import pytest

from src.images.sources.shapes import CLASS_NAMES
from src.plumbing.errors import InputError
from src.preparation.targets import columns_of_flags, require_one_class

draws = random.Random(0)
PRIMARY = ["clear primary", "cloudy", "haze primary"]
USES = ["water", "road", "habitation", "agriculture", "cultivation"]
# As the labels of satellite images are written: each has its weather, few stand alone.
SATELLITE = [" ".join([w, *sorted(draws.sample(USES, k))]) for k in range(5) for w in PRIMARY * 4]


@pytest.mark.parametrize(
    "labels",
    [
        [f"{draws.gauss(0, 1):.4f}" for _ in range(500)],
        [f"{draws.uniform(0, 10):.1f}" for _ in range(5000)],
        [f"{draws.gauss(0, 1):.3e}" for _ in range(500)],
        [f"{draws.uniform(0, 9):.2f}".replace(".", ",") for _ in range(500)],
        [str(half / 2) for half in range(60)] * 9,
        [f"{draws.random()}" for _ in range(500)] + ["NaN"] * 3,
        [f" {draws.random():.5f} " for _ in range(12)],
        ["36.6", "37.2", "38.9", "35.1"],
    ],
)
def test_quantities_are_refused(labels: list[str]) -> None:
    with pytest.raises(InputError, match=r"^t\.csv holds \d+ .*\(regression\), and this .*'v") as e:
        require_one_class(Counter(labels), "t.csv")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (["cat|dog", "cat", "bird"], "'cat|dog'"),
        (["cat;dog", "dog;bird", "cat;bird"], "'cat;dog'"),
        (["Mass|Edema", "Effusion|Edema|Mass", "No Finding", "Edema"], "'Mass|Edema'"),
        (["cat,dog", "cat", "dog"], "'cat,dog'"),
        (["cat, dog", "cat", "dog", "bird, cat", "bird"], "'cat, dog'"),
        (["['cat', 'dog']", "['cat']", "['dog']"], "['cat', 'dog']"),
        (["cat dog", "cat", "dog"], "'cat dog'"),
        (["cat dog", "dog bird", "cat", "dog", "bird", "hot dog"], "'cat dog'"),
        (["1 2", "1", "2", "2 3", "3"], "'1 2'"),
        (SATELLITE, "' "),
    ],
)
def test_lists_of_labels_are_refused(labels: list[str], shown: str) -> None:
    with pytest.raises(
        InputError, match=r"^t\.csv holds several labels a sample.*multi-label"
    ) as e:
        require_one_class(Counter(labels * 30), "t.csv")
    assert shown in str(e.value) or shown == "' "
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "2", "3"],
        ["1.0", "2.0", "3.0"],
        [f"{number}.0" for number in range(100)],
        [str(number) for number in range(1000)],
        ["2.8", "4", "5.6", "8"],
        [str(half / 2) for half in range(1, 11)],
        [f"v{number}.5" for number in range(50)],
        [*map(str, range(50)), "2.5"],
        ["2.5", "3.5", *"abcdefghijklmnopqrstuvwxyz"],
        ["1e5", "007", "7", "NaN", "inf", "no", " a b "],
        ["hot dog", "dog", "cat"],
        ["hot dog", "dog", "cat", "ice cream", "polar bear", "bear"],
        ["red fox", "grey fox", "fox", "wolf", "red wolf"],
        ["great white shark, white shark, man-eater", "hammerhead, hammerhead shark", "sting ray"],
        ["T-shirt, top", "Dress", "Coat"],
        ["Smith, John", "Smith, Anna", "Jones, John"],
        ["T-shirt/top", "0 - zero", "1 - one"],
        ["a|b", "c|d"],
        ["animal;dog", "animal;cat", "plant;oak", "plant;ash"],
        [" ".join(words) for words in product(["red", "green", "blue"], ["car", "bus", "van"])],
        [
            " ".join(words).strip()
            for words in product(["left", "right"], ["", "upper", "lower"], ["lung"])
        ],
        list(CLASS_NAMES),
        ["[cat]", "[dog]"],
        [";", "|", ","],
    ],
)
def test_names_of_classes_pass(labels: list[str]) -> None:
    require_one_class(Counter(labels * 30), "t.csv")


def test_columns_of_flags() -> None:
    table = [
        ["path", "cat", "dog", "bird", "count", "part", "always"],
        ["a.png", "1", "0.0", "True", "1", "", "1"],
        ["b.png", "0", "1.0", "False", "2", "", "1"],
        ["c.png", "", "-1.0", "False", "0", "", "1"],
    ]
    assert columns_of_flags(table) == ["cat", "dog", "bird"]
