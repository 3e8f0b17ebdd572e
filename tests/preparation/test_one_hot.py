"""Labels in columns of 0 and 1, one a class."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src.data.packed import PackedSplit
from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation.image_folders import read_csv, write_images

CLASSES = ("MEL", "NV", "BKL/x")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", {"images": 60})


def write_table(root: Path, flag: Callable[[int, int], str], more: str = "") -> None:
    """Row n is of class n % 3; `flag(n, k)` is what stands in the column of class k."""
    rows = [f"images/{n:03d}.png,{n}," + ",".join(flag(n, k) for k in range(3)) for n in range(60)]
    header = ",".join(["path", "age", *CLASSES])
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n" + more)


def plain(n: int, k: int) -> str:
    return str(int(n % 3 == k))


def prepare(project: Path, root: Path, **values: object) -> dict[str, PackedSplit]:
    label = values.pop("csv_label_column", "[MEL, NV, BKL/x]")
    set_params(project, source="csv", path=root, csv_label_column=label, split_seed=1, **values)
    return packed(project)


def classes_of(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {
        path: data.meta["classes"][label]
        for data in splits.values()
        for path, label in zip(data.paths, data.labels, strict=True)
    }


def refused(project: Path, root: Path, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        prepare(project, root, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_hot_columns_are_recognised_and_read(project: Path, root: Path) -> None:
    """The example: the line names the columns as the key takes them."""
    write_table(root, plain)
    line = refused(project, root, csv_label_column="label")
    assert line == (
        f"{root}/labels.csv has no column label (prepare.csv_label_column), and a single 1 a row "
        "in 3 columns of 0 and 1: if they are the classes, set prepare.csv_label_column to "
        '[MEL, NV, "BKL/x"]'
    )
    found = classes_of(prepare(project, root, csv_label_column=line.rpartition(" to ")[2]))
    assert found == {f"images/{n:03d}.png": CLASSES[n % 3] for n in range(60)}


@pytest.mark.parametrize(
    ("yes", "no"), [("1.0", "0.0"), ("True", "False"), ("1", "-1"), ("1", ""), ("yes", "no")]
)
def test_flags_as_programs_write_them(project: Path, root: Path, yes: str, no: str) -> None:
    """Relatives: pandas' floats and booleans, -1 for no, empty cells, words."""
    write_table(root, lambda n, k: yes if n % 3 == k else no)
    assert "a single 1 a row in 3 columns" in refused(project, root, csv_label_column="label")
    found = classes_of(prepare(project, root))
    assert found == {f"images/{n:03d}.png": CLASSES[n % 3] for n in range(60)}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("0,0,0", "none of its label columns is 1"),
        ("1,0,1", "more than one of its label columns is 1"),
        ("0.7,0.3,0", "column MEL of its row holds '0.7', and not 0 or 1"),
        ("1,0", "its row has 4 fields instead of 5"),
    ],
)
def test_a_row_without_one_class_is_rejected(
    project: Path, root: Path, cells: str, words: str
) -> None:
    """A relative: the row is named, and the others are used."""
    write_table(root, plain, f"images/x.png,0,{cells}\n")
    assert f"images/x.png cannot be used: {words}: correct the row (line 62)" in refused(
        project, root
    )
    assert len(classes_of(prepare(project, root, on_bad="skip"))) == 60
    assert [row["reason"] for row in read_csv(project / "data/prepared/rejects.csv")] == [words]


def test_several_labels_a_sample_are_refused_as_such(project: Path, root: Path) -> None:
    write_table(root, lambda n, k: str(int(n % 3 >= k)))
    assert "a label in each of 2 columns" in refused(project, root, csv_label_column="label")
    line = refused(project, root)
    assert "in the 3 columns of prepare.csv_label_column, for 40 of 60 samples" in line
    assert "(multi-label), and this project trains one class a sample" in line


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("[MEL, XY]", "has no column XY (prepare.csv_label_column)"),
        ("[MEL]", "prepare.csv_label_column must list at least two columns, each once"),
        ("[MEL, MEL]", "must list at least two columns, each once"),
        ("[]", "must be the name of a column or a list of such names, got an empty list"),
        ("[[a], b]", "got 'a list' in the list"),
        ("[1, MEL]", "got 1 in the list; quote it"),
    ],
)
def test_lists_that_cannot_work(project: Path, root: Path, listed: str, words: str) -> None:
    write_table(root, plain)
    assert words in refused(project, root, csv_label_column=listed)
