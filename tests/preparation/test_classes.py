"""Classes that are left out or become one, by keys that work for every source."""

from pathlib import Path
from typing import Any

import pytest

from src.data.packed import PackedSplit
from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation import test_parquet as parquet
from tests.preparation.image_folders import by_path, prepare_folder, report, write_images

COUNTS = {"cat": 20, "dog": 20, "kitten": 20, "Skip": 6, "Not sure": 6}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders, and a table that names them."""
    root = write_images(tmp_path / "data", COUNTS)
    rows = [f"{name}/{n:03d}.png,{name}" for name, count in COUNTS.items() for n in range(count)]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return root


def prepare(project: Path, root: Path, source: str, **values: object) -> dict[str, PackedSplit]:
    set_params(project, source=source, path=root, **values)
    return packed(project)


def count_of(splits: dict[str, PackedSplit]) -> dict[str, int]:
    return {
        name: sum(int((data.labels == label).sum()) for data in splits.values())
        for label, name in enumerate(splits["train"].meta["classes"])
    }


CHOSEN: dict[str, Any] = {"leave_out": "[Skip, 'Not sure']", "merge": "[kitten=cat]"}


@pytest.mark.parametrize("source", ["csv", "folder"])
def test_classes_left_out_and_merged(
    project: Path, root: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example, in a table; its relative, class folders. No other sample moves."""
    before = by_path(prepare(project, root, source, on_bad="skip"))
    capsys.readouterr()
    (root / "Skip/000.png").write_bytes(b"broken")  # nobody needs it
    splits = prepare(project, root, source, on_bad="fail", **CHOSEN)
    assert count_of(splits) == {"cat": 40, "dog": 20}
    after = by_path(splits)
    assert after == {path: split for path, split in before.items() if path[0] in "cdk"}
    assert report(project)["left_out_classes"] == {"Skip": 6, "Not sure": 6}
    printed = capsys.readouterr().out.splitlines()
    assert "prepare: left out, as prepare.leave_out says: 6 of 'Not sure', 6 of 'Skip'" in printed
    assert "prepare: merged, as prepare.merge says: 20 of 'kitten' into 'cat'" in printed


def test_digits_become_two_classes(project: Path) -> None:
    """A relative: a source without files, and numbers as names."""
    old = [f"{digit}=even" for digit in "02468"] + [f"{digit}=odd" for digit in "13579"]
    listed = ", ".join(f"'{entry}'" for entry in old)
    set_params(project, source="digits", merge=f"[{listed}]", channels=1)
    assert count_of(packed(project)) == {"even": 891, "odd": 906}
    set_params(project, merge="none", leave_out="['0', '9']")
    splits = packed(project)
    assert list(count_of(splits)) == list("12345678")


def test_a_bad_row_of_a_class_that_is_left_out_does_not_matter(project: Path, root: Path) -> None:
    """A relative: rows that are refused before their file is read."""
    with open(root / "labels.csv", "a") as table:
        table.write("Skip/999.png,Skip\n/abs.png,Not sure\n")
    assert count_of(prepare(project, root, "csv", **CHOSEN)) == {"cat": 40, "dog": 20}
    with open(root / "labels.csv", "a") as table:
        table.write("cat/999.png,cat\n")
    with pytest.raises(InputError, match=r"cat/999\.png cannot be used: it does not exist .*; se"):
        prepare(project, root, "csv", **CHOSEN)


def test_what_is_refused_before_its_class_is_known_stays_refused(
    project: Path, root: Path, tmp_path: Path
) -> None:
    """A relative: it must not go with the first class, which is left out."""
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(InputError, match="linked cannot be used: it is a link to a folder"):
        prepare(project, root, "folder", leave_out="['Not sure', Skip]")


def test_classes_of_parquet_files(project: Path, tmp_path: Path) -> None:
    """A relative: rows that are read once, and one of them without an image."""
    rows = parquet.table(0, 90)
    label = parquet.pa.array([str(n % 3) for n in range(90)])
    made = rows.set_column(rows.schema.get_field_index("label"), "label", label)
    root = parquet.write(tmp_path / "parquet", train=made)
    splits = prepare(project, root, "parquet", leave_out="['0']", merge="['1=one']")
    assert count_of(splits) == {"one": 30, "2": 30}


def test_rows_that_agree_once_merged_are_no_conflict(project: Path, root: Path) -> None:
    with open(root / "labels.csv", "a") as table:
        table.write("kitten/000.png,cat\n")
    with pytest.raises(InputError, match=r"kitten/000\.png .* its rows have different labels"):
        prepare(project, root, "csv", leave_out="[Skip, 'Not sure']")
    assert count_of(prepare(project, root, "csv", **CHOSEN)) == {"cat": 40, "dog": 20}


def test_twins_that_are_merged_are_not_remarked(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", {"cat": 20, "Cat": 20, "dog": 20})
    prepare_folder(project, images)
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "differ by case" in x)
    _, _, advice = line.partition("set prepare.merge to ")
    assert advice == '["Cat=cat"]'
    splits = prepare_folder(project, images, merge=advice)
    assert count_of(splits) == {"cat": 40, "dog": 20}
    assert "differ by case" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "classes"),
    [
        ("a=b=cat", ["cat", "d="]),
        ("d==cat", ["a=b", "cat"]),
        ("cat=a=b", ["a=b", "d="]),
    ],
)
def test_names_with_an_equals_sign(
    project: Path, tmp_path: Path, entry: str, classes: list[str]
) -> None:
    """In a class of the data, at its end, and in the new name."""
    images = write_images(tmp_path / "images", {"a=b": 20, "d=": 20, "cat": 20})
    splits = prepare_folder(project, images, merge=f"['{entry}']")
    assert sorted(count_of(splits)) == classes
    assert sorted(count_of(splits).values()) == [20, 40]


def test_an_entry_that_names_two_classes_is_refused(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"a": 20, "a=b": 20, "cat": 20})
    with pytest.raises(InputError, match="names 'a' or 'a=b' in 'a=b=cat', and both are classes"):
        prepare_folder(project, images, merge="['a=b=cat']")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"leave_out": "[skip]"}, "prepare.leave_out names 'skip', which is no class of the data, "
         "did you mean Skip?"),
        ({"merge": "[xyz=cat]"}, "prepare.merge names 'xyz', which is no class of the data: they "
         "have 'Not sure', 'Skip', 'cat', 'dog', 'kitten'"),
        ({"merge": "[kitten]"}, "prepare.merge must list 'class=new name', got 'kitten'"),
        ({"merge": "[kitten=]"}, "prepare.merge must list 'class=new name', got 'kitten='"),
        ({"merge": "[dog=cat, dog=pet]"}, "prepare.merge names class 'dog' twice"),
        ({"merge": "[Skip=cat]", "leave_out": "[Skip]"}, "class 'Skip' stands in prepare.leave_out "
         "and in prepare.merge"),
        ({"merge": "[dog=cat, kitten=cat]", "leave_out": "[Skip, 'Not sure']"}, "leave 1 of the 5 "
         "classes, and training needs two"),
        ({"leave_out": "Skip"}, "prepare.leave_out must be none or a list of names of classes, got "
         "'Skip'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["folder", "csv"])
def test_choices_that_cannot_work(
    project: Path, root: Path, values: dict[str, str], words: str, source: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(project, root, source, **values)
    assert words in str(caught.value)
    assert str(caught.value).startswith("params.yaml: ")
    assert "\n" not in str(caught.value)
