"""Tables of images (source csv): each odd one ends as a row of rejects.csv or in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.data.packed import PackedSplit
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA
from tests.conftest import packed, run_unchecked, set_params
from tests.preparation.image_folders import by_path, read_csv, report, write_images

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
ROWS = [f"{name}/{number:03d}.png,{name}" for name in ("cat", "dog") for number in range(30)]
GOOD = "path,label\n" + "\n".join(ROWS) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    write_images(root / "data", {"cat": 30, "dog": 30})
    shutil.copy(root / "data/cat/000.png", root / "outside.png")
    return root


@pytest.fixture
def root(files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(files, tmp_path / "files")) / "data"


def prepare(
    project: Path, root: Path, table: str | bytes = GOOD, **values: Any
) -> dict[str, PackedSplit]:
    data = table if isinstance(table, bytes) else table.encode()
    (root / "labels.csv").write_bytes(data)
    set_params(project, source="csv", path=root, **values)
    return packed(project)


def rejects(project: Path) -> dict[str, str]:
    rows = read_csv(project / "data/prepared/rejects.csv")
    return {row["path"]: f"{row['reason']}; {row['what to do']}" for row in rows}


def labels(splits: dict[str, PackedSplit]) -> dict[str, str]:
    return {
        path: data.meta["classes"][label]
        for data in splits.values()
        for path, label in zip(data.paths, data.labels, strict=True)
    }


def with_column(name: str, value: Callable[[int], str]) -> str:
    rows = [f"{row},{value(number)}" for number, row in enumerate(ROWS)]
    return f"path,label,{name}\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("choice", DELIMITERS)
def test_csv_delimiter(project: Path, root: Path, choice: str) -> None:
    table = GOOD.replace(",", DELIMITERS[choice])
    splits = prepare(project, root, table, csv_delimiter=choice)
    assert sum(map(len, splits.values())) == 60
    assert {"auto", *DELIMITERS} == set(SCHEMA["prepare.csv_delimiter"].choices)
    for other in set(DELIMITERS) - {choice}:
        with pytest.raises(InputError, match="has no column path"):
            prepare(project, root, table, csv_delimiter=other)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (lambda text: text.encode(), {}),
        (lambda text: b"\xef\xbb\xbf" + text.encode(), {}),
        (lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"), {}),
        (lambda text: text.replace("\n", "\r").encode(), {}),
        (lambda text: text.replace(",", ";").encode(), {}),
        (lambda text: text.replace(",", "\t").encode("utf-16"), {}),
        (lambda text: text.replace(",", "|").encode(), {"csv_delimiter": "pipe"}),
        (lambda text: text.rstrip().encode(), {}),
        (lambda text: text.replace("\n", "\n\n").encode(), {}),
        (lambda text: text.replace("cat/", "./cat//").encode(), {}),
        (lambda text: text.replace("/", "\\").encode(), {}),
        (lambda text: text.replace("path,", '"path",').encode(), {}),
        (lambda text: text.encode("cp1251"), {"csv_encoding": "cp1251"}),
        (lambda text: text.encode("utf-8-sig"), {"csv_encoding": "utf-8"}),
        (lambda text: text.encode("utf-8-sig"), {"csv_encoding": "UTF8"}),
        (lambda text: ('"no\nte",' + text.replace("\n", "\nx,")[:-2]).encode(), {}),
    ],
)  # fmt: skip
def test_tables_as_programs_write_them(
    project: Path, root: Path, change: Callable[[str], bytes], values: dict[str, str]
) -> None:
    found = labels(prepare(project, root, change(GOOD), **values))
    assert found == {row.split(",")[0]: row.split(",")[1] for row in ROWS}
    assert (project / "data/prepared/rejects.csv").read_text() == "path,reason,what to do\n"


def test_columns_by_name_in_any_order(project: Path, root: Path) -> None:
    rows = [f'x,{path.split(",")[1]},"a, b",{path.split(",")[0]}' for path in ROWS]
    table = "id,kind of animal,note,file\n" + "\n".join(rows)
    columns = {"csv_path_column": "file", "csv_label_column": "kind of animal"}
    assert len(labels(prepare(project, root, table, **columns))) == 60


def test_the_table_may_lie_deeper_and_paths_start_at_the_folder(project: Path, root: Path) -> None:
    (root / "tables").mkdir()
    (root / "tables/one.csv").write_text(GOOD)
    assert len(labels(prepare(project, root, csv_file="tables/one.csv"))) == 60


def test_cp1251_is_recognised_by_eye(project: Path, root: Path) -> None:
    """No other one-byte encoding differs from it: the line shows how each would read."""
    (root / "шляпа").mkdir()
    for path in (root / "cat").iterdir():
        shutil.move(path, root / "шляпа" / path.name)
    table = GOOD.replace("cat", "шляпа").encode("cp1251")
    with pytest.raises(InputError) as caught:
        prepare(project, root, table)
    assert "is not UTF-8: set prepare.csv_encoding" in str(caught.value)
    assert "cp1251 'шляпа/000.png,шляпа'" in str(caught.value)
    found = labels(prepare(project, root, table, csv_encoding="cp1251"))
    assert set(found.values()) == {"шляпа", "dog"}


def test_labels_are_text_as_written(project: Path, root: Path) -> None:
    """Not booleans, numbers or missing values, here and in all that follows."""
    names = ["no", "007", "null", "7", "NaN", "1e5", " a b ", "Да", "true", "None"]
    rows = [f"{row.split(',')[0]},{names[n % 10]}" for n, row in enumerate(ROWS)]
    splits = prepare(project, root, "path,label\n" + "\n".join(rows), on_bad="skip", split_seed=7)
    assert splits["train"].meta["classes"] == sorted(names)
    assert labels(splits) == {row.rpartition(",")[0]: row.rpartition(",")[2] for row in rows}


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        ("/etc/passwd,cat", "/etc/passwd", "its path is absolute; correct the row (line 62)"),
        ("C:\\images\\a.png,cat", "C:/images/a.png", "its path is absolute"),
        ("../outside.png,cat", "../outside.png", "its path leads out of the data folder"),
        ("cat/../../outside.png,cat", "cat/../../outside.png", "its path leads out"),
        ("..,cat", "..", "its path leads out"),
        ("cat/999.png,cat", "cat/999.png", "it does not exist (tried "),
        ("cat,cat", "cat", "its path is that of a folder"),
        ("labels.csv,cat", "labels.csv", "it holds no image"),
        (",cat", "(line 62)", "its row has no path"),
        ("cat/x.png,", "cat/x.png", "its row has no label"),
        ("cat/x.png", "cat/x.png", "its row has 1 field instead of 2"),
        ("cat/x.png,cat,dog", "cat/x.png", "its row has 3 fields instead of 2"),
        ("cat/000.png,dog", "cat/000.png", "its rows have different labels (line 2: 'cat', line "
         "62: 'dog'); keep one of the rows"),
        ("./cat/000.png,dog", "cat/000.png", "its rows have different labels"),
        ('cat/x.png,"a\rb"', "cat/x.png", "its row has a carriage return in the label"),
        ('"cat/\r.png",cat', "cat/\\r.png", "its name has a carriage return in it; "),
        ("https://example.org/a.png,cat", "https://example.org/a.png", "its path is an address"),
        ("s3://bucket/a.png,cat", "s3://bucket/a.png", "its path is an address, and nothing is "
         "downloaded; correct the row (line 62)"),
    ],
)  # fmt: skip
def test_bad_rows_are_rejected(project: Path, root: Path, row: str, name: str, words: str) -> None:
    splits = prepare(project, root, f"{GOOD}{row}\n", on_bad="skip")
    assert words in rejects(project)[name]
    assert len(rejects(project)) == 1
    assert len(labels(splits)) == (59 if name == "cat/000.png" else 60)
    with pytest.raises(InputError) as caught:
        prepare(project, root, f"{GOOD}{row}\n", on_bad="fail")
    assert str(caught.value).startswith(f"prepare: {name} cannot be used: {words.split(';')[0]}")


def test_a_path_through_a_linked_folder_is_refused(
    project: Path, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    shutil.copy(root / "cat/000.png", tmp_path / "elsewhere/deep/x.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    splits = prepare(project, root, GOOD + "linked/deep/x.png,cat\n", on_bad="skip")
    assert "its path leads through a link to a folder" in rejects(project)["linked/deep/x.png"]
    assert len(labels(splits)) == 60


def test_repeated_rows_count_once(
    project: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = prepare(project, root, GOOD + ROWS[0] + "\n" + ROWS[1] + "\n./" + ROWS[1] + "\n")
    assert len(labels(splits)) == 60
    assert report(project)["repeated_rows"] == 3
    assert "3 rows of" in capsys.readouterr().out


@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_refused_repeats_none(project: Path, root: Path, first: bool) -> None:
    """Which of its fields is the one too many, nobody knows: it says nothing again."""
    odd = f"{ROWS[0]},extra\n"
    rows = GOOD.partition("\n")[2]
    table = f"path,label\n{odd}{rows}" if first else GOOD + odd
    splits = prepare(project, root, table, on_bad="skip")
    line = 2 if first else 62
    assert rejects(project) == {
        "cat/000.png": f"its row has 3 fields instead of 2; correct the row (line {line})"
    }
    assert len(labels(splits)) == 59
    assert report(project)["repeated_rows"] == 0


@pytest.mark.parametrize("column", ["split", "group"])
def test_both_of_two_rows_that_contradict_each_other_are_named(
    project: Path, root: Path, column: str
) -> None:
    table = with_column("odd", lambda number: ("train", "test", "val")[number % 3])
    key = {f"csv_{column}_column": "odd", "on_leak": "drop"}
    prepare(project, root, f"{table}cat/001.png,cat,val\n", on_bad="skip", **key)
    assert rejects(project) == {
        "cat/001.png": f"its rows have different {column}s (line 3: 'test', line 62: 'val'); "
        "keep one of the rows"
    }


def test_one_is_said_in_the_singular(
    project: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "path,label\n" + "\n".join([*ROWS[1:], ROWS[1], "cat/x.png,cat"])
    prepare(project, root, table, on_bad="skip")
    printed = capsys.readouterr().out
    assert "prepare: 1 row of " in printed
    assert " says again what another one says" in printed
    assert "prepare: 1 file in " in printed
    assert " is in no row of " in printed
    assert "prepare: 1 sample cannot be used and was left out (" in printed


def test_images_that_no_row_names_are_counted(
    project: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(project, root, "path,label\n" + "\n".join(ROWS[2:]))
    assert report(project)["pictures_without_a_row"] == 2
    assert "2 files in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        (b"", {}, "is empty: its first line must name the columns"),
        ("path,label\n", {}, "has a header and no rows"),
        ("path,label", {}, "has a header and no rows"),
        ("\n".join(ROWS), {}, "has no column path (prepare.csv_path_column); its first line must "
         "name the columns, and names 'cat/000.png', 'cat'"),
        ("path,class\ncat/000.png,cat\n", {}, "has no column label (prepare.csv_label_column); its "
         "first line must name the columns, and names 'path', 'class'"),
        ("path,label,label\na,b,c\n", {}, "has two columns label: rename one of them"),
        (GOOD, {"csv_delimiter": "tab"}, "has no column path"),
        (GOOD, {"csv_split_column": "split"}, "has no column split (prepare.csv_split_column)"),
        (GOOD, {"csv_encoding": "klingon"}, "prepare.csv_encoding klingon is no encoding"),
        ("path,label\ncat/é.png,cat\n", {"csv_encoding": "ascii"}, "is not written in ascii"),
        (GOOD, {"csv_file": "nothing.csv"}, "prepare.csv_file nothing.csv is no file in"),
        (GOOD, {"csv_file": "../outside.csv"}, "prepare.csv_file must lie in prepare.path"),
        (GOOD, {"csv_file": "/etc/passwd"}, "prepare.csv_file must lie in prepare.path"),
        (GOOD + 'cat/x.png,"open\n', {}, "near line 62: unexpected end of data: close its quotes"),
        ("path,label\ncat/000.png,cat\n", {}, "must name at least two classes in column label"),
        ("path,label\n/a.png,cat\n/b.png,dog\n", {}, "no path in column path leads to a file in"),
        ("path,label\ncat/000.png,\ncat/001.png,\n", {}, "found 0; line 2: its row has no label"),
        (b"path,label\n\x9f\xff\n", {}, "is not UTF-8"),
        ("x" * 2**18, {}, "near line 1: field larger than field limit (131072): close its quotes"),
        ('"path,label\na.png,cat\n', {}, "near line 2: unexpected end of data: close its quotes"),
        ('path,label,"note\na,b,c\n', {}, "near line 2: unexpected end of data: close its quotes"),
        ('"file";"label"\n"a";"b"\n', {}, "has no column path (prepare.csv_path_column); its first "
         "line must name the columns, and names 'file', 'label'"),
        (" \npath,label\n", {}, "is empty: its first line must name the columns"),
        (GOOD.encode("utf-16")[:-1], {}, "is UTF-16 by its first bytes and is cut short or damaged "
         "(truncated data): copy it again"),
        (GOOD.encode("utf-16")[:-1], {"csv_encoding": "utf16"}, "is cut short or damaged"),
        (GOOD.encode("utf-16-le"), {}, "labels.csv is UTF-16 without a byte-order mark: set "
         "prepare.csv_encoding=utf-16-le, or save it as UTF-8"),
        (GOOD.replace("label", "вид").encode("utf-16-be"), {}, "prepare.csv_encoding=utf-16-be"),
        (GOOD.encode("utf-32"), {}, "is UTF-32 by its first bytes: save it as UTF-8"),
        (GOOD, {"csv_file": "a" * 256}, "aaa is no file in"),
    ],
)  # fmt: skip
def test_tables_that_cannot_work_say_so(
    project: Path, root: Path, table: str | bytes, values: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(project, root, table, **values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (project / "data/prepared").exists()


def with_labels(label: Callable[[int], str]) -> str:
    rows = [f'{row.split(",")[0]},"{label(number)}"' for number, row in enumerate(ROWS)]
    return "path,label\n" + "\n".join(rows) + "\n"


def with_flags(*header: str) -> str:
    """Two columns of 0 and 1."""
    flags = [f"{row.split(',')[0]},{n // 30},{n % 3 // 2}" for n, row in enumerate(ROWS)]
    return ",".join(header) + "\n" + "\n".join(flags) + "\n"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            with_labels(lambda n: f"{n / 7:.3f}"),
            ": column label holds 60 different numbers for 60 samples, such as 0.143 and 0.286: "
            "that is a quantity (regression), and this project trains one class a sample: write",
        ),
        (
            with_labels(lambda n: ("cat", "dog", "cat|dog")[n % 3]),
            ": column label holds several labels a sample, such as 'cat|dog' (multi-label, "
            "separated by '|'), and this project trains one class a sample: keep one label",
        ),
        (
            with_labels(lambda n: ("cat", "dog", "cat, dog")[n % 3]),
            ": column label holds several labels a sample, such as 'cat, dog' (multi-label, "
            "separated by commas), and this project trains one class a sample: keep one label",
        ),
        (
            with_labels(lambda n: ("cat", "dog", "dog cat")[n % 3]),
            ": column label holds several labels a sample, such as 'dog cat' (multi-label, "
            "separated by blanks), and this project trains one class a sample: keep one label",
        ),
        (
            with_flags("path", "cat", "night"),
            " has no column label (prepare.csv_label_column), and a label in each of 2 columns of "
            "0 and 1, such as cat and night (multi-label), and this project trains one class a sa",
        ),
        (
            GOOD + "".join(f"{row.split(',')[0]},bird\n" for row in ROWS[:10]),
            " holds several labels a sample, in rows of their own, for 10 of 60 samples, such as "
            "cat/000.png (multi-label), and this project trains one class a sample: keep one row",
        ),
    ],
)
def test_other_targets_than_a_class_are_refused(
    project: Path, root: Path, table: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(project, root, table, on_bad="skip")
    assert str(caught.value).startswith(f"{root}/labels.csv{words}")
    assert "\n" not in str(caught.value)
    assert not (project / "data/prepared").exists()


@pytest.mark.parametrize(
    ("table", "classes"),
    [
        (with_labels(lambda n: f"{n % 2 + 1}.0"), ["1.0", "2.0"]),
        (with_labels(lambda n: ("2.8", "5.6")[n % 2]), ["2.8", "5.6"]),
        (with_labels(lambda n: ("hot dog", "dog")[n % 2]), ["dog", "hot dog"]),
        (with_labels(lambda n: ("Smith, John", "Smith, Anna")[n % 2]),
         ["Smith, Anna", "Smith, John"]),
        (with_flags("path", "label", "night"), ["0", "1"]),
        (GOOD + f"{ROWS[0].split(',')[0]},dog\n", ["cat", "dog"]),
    ],
)  # fmt: skip
def test_classes_that_look_like_other_targets_pass(
    project: Path, root: Path, table: str, classes: list[str]
) -> None:
    splits = prepare(project, root, table, on_bad="skip")
    assert splits["train"].meta["classes"] == classes


def test_a_mistyped_column_is_said_as_such(project: Path, root: Path) -> None:
    with pytest.raises(InputError, match=r"no column labl .*its first line must name the columns"):
        prepare(project, root, with_flags("path", "label", "night"), csv_label_column="labl")


def test_a_split_column_is_respected(project: Path, root: Path) -> None:
    words = ("train", "Training", "dev", "Validation", "testing", " test ")
    table = with_column("part", lambda number: words[number % 6])
    splits = by_path(prepare(project, root, table, csv_split_column="part"))
    wanted = ("train", "train", "val", "val", "test", "test")
    assert splits == {row.split(",")[0]: wanted[number % 6] for number, row in enumerate(ROWS)}


def test_what_a_split_column_leaves_out_comes_from_train(project: Path, root: Path) -> None:
    table = with_column("split", lambda number: "test" if number % 3 == 0 else "train")
    splits = by_path(prepare(project, root, table, csv_split_column="split"))
    given = {row.split(",")[0] for row in ROWS[::3]}
    assert {path for path, split in splits.items() if split == "test"} == given
    assert "val" in splits.values()


@pytest.mark.parametrize("word", ["", "holdout"])
def test_an_unknown_split_is_rejected(project: Path, root: Path, word: str) -> None:
    table = with_column("split", lambda number: "train") + f"cat/x.png,cat,{word}\n"
    prepare(project, root, table, csv_split_column="split", on_bad="skip")
    said = f"its row has a split that is none of train, val, test ({word!r}); correct the row (line"
    assert said in rejects(project)["cat/x.png"]


def test_a_split_column_without_train_shows_what_it_says(project: Path, root: Path) -> None:
    table = with_column("split", lambda number: str(number % 3))
    words = "column split says train, but '0', '1', '2': write train, val and test in their place"
    for bad in ("fail", "skip"):
        with pytest.raises(InputError, match=words):
            prepare(project, root, table, csv_split_column="split", on_bad=bad)
    many = with_column("split", lambda number: str(number % 10) if number % 4 else "test")
    with pytest.raises(InputError, match=r"says train, but '1', .*, \.\.\.: write train, val and"):
        prepare(project, root, many, csv_split_column="split")


def test_groups_stay_together_and_do_not_move(project: Path, root: Path) -> None:
    table = with_column("patient", lambda number: f"P{number // 3}")
    before = by_path(prepare(project, root, table, csv_group_column="patient"))
    for first in range(0, 60, 3):
        assert len({before[row.split(",")[0]] for row in ROWS[first : first + 3]}) == 1
    assert len(set(before.values())) == 3
    # New patients, and a new image of an old one.
    write_images(root, {"new": 6}, size=(9, 9))
    more = "".join(f"new/{n:03d}.png,cat,{'P0' if n == 0 else f'Q{n}'}\n" for n in range(6))
    after = by_path(prepare(project, root, table + more, csv_group_column="patient"))
    assert {path: after[path] for path in before} == before
    assert after["new/000.png"] == before["cat/000.png"]


def test_a_class_of_one_group_needs_more_groups(project: Path, root: Path) -> None:
    """More images of that group would all go to the same split."""
    table = with_column("patient", lambda number: "P" if number < 30 else f"Q{number}")
    with pytest.raises(InputError, match=r"prepare: no sample of class 'cat' in split ") as caught:
        prepare(project, root, table, csv_group_column="patient")
    assert str(caught.value).endswith(
        "add samples of 'cat' in more groups, of which there is 1 for 3 splits"
    )


def test_a_group_with_more_than_half_of_the_samples_is_named(
    project: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all, of which nothing else helps; with most; and with most of given splits."""
    cause = "of 60 samples, and a group goes to one split whole: if it stands for samples whose "
    with pytest.raises(InputError, match=f"in split (train|val): group 'lost' has 60 {cause}"):
        prepare(project, root, with_column("site", lambda n: "lost"), csv_group_column="site")
    table = with_column("site", lambda n: "lost" if n % 3 else f"s{n}")
    prepare(project, root, table, csv_group_column="site", split_seed=8, on_bad="skip")
    assert f"group 'lost' has 40 {cause}" in capsys.readouterr().out
    rows = [f"{row},{('train', 'val', 'test')[n % 3]},lost" for n, row in enumerate(ROWS)]
    table = "path,label,split,site\n" + "\n".join(rows)
    with pytest.raises(InputError, match=f"same group lost as .*; group 'lost' has 60 {cause}"):
        prepare(project, root, table, csv_group_column="site", csv_split_column="split")


@pytest.mark.parametrize("word", ["NaN", "NA", "-", "none", "null", "?", " n/a "])
def test_a_word_for_a_missing_group_is_no_group(
    project: Path, root: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def table(missing: str) -> str:
        return with_column("site", lambda n: missing if n % 2 else f"s{n}")

    blank = by_path(prepare(project, root, table(""), csv_group_column="site"))
    capsys.readouterr()
    assert by_path(prepare(project, root, table(word), csv_group_column="site")) == blank
    said = f"30 samples with the group {word!r}: taken as without one, so each is on its own;"
    assert said in capsys.readouterr().out


def test_a_group_in_two_given_splits_is_a_leak(project: Path, root: Path) -> None:
    rows = [f"{row},{'test' if n % 3 == 0 else 'train'},P{n}" for n, row in enumerate(ROWS)]
    rows[1] = rows[1].replace("P1", "P0")
    table = "path,label,split,patient\n" + "\n".join(rows)
    columns = {"csv_split_column": "split", "csv_group_column": "patient"}
    words = (
        r"cat/001\.png of split (train|val) is of the same group P0 as cat/000\.png of split test"
    )
    with pytest.raises(InputError, match=words):
        prepare(project, root, table, **columns)
    splits = by_path(prepare(project, root, table, **columns, on_leak="drop"))
    assert "cat/001.png" not in splits
    assert splits["cat/000.png"] == "test"
    assert report(project)["leaks"]["count"] == 1


def test_identical_images_of_two_groups_do_not_part(project: Path, root: Path) -> None:
    """Where the groups fall into two splits, one of the images would leak."""
    table = with_column("patient", lambda number: f"P{number}")
    splits = by_path(prepare(project, root, table, csv_group_column="patient"))
    one = next(path for path, split in splits.items() if split == "test")
    other = next(path for path, split in splits.items() if split == "train")
    shutil.copy(root / one, root / other)
    with pytest.raises(InputError, match="is the same image as"):
        prepare(project, root, table, csv_group_column="patient")
    kept = by_path(prepare(project, root, table, csv_group_column="patient", on_leak="drop"))
    assert len(kept) == 59


@pytest.mark.parametrize("source", ["csv", "folder"])
def test_odd_class_names_arrive_in_the_predictions(
    project: Path, tmp_path: Path, source: str
) -> None:
    names = ["007", "no", "null"]
    root = write_images(tmp_path / "images", dict.fromkeys(names, 30))
    rows = [f"{name}/{number:03d}.png,{name}\n" for name in names for number in range(30)]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    set_params(project, source=source, path=root, epochs=1)
    run_unchecked(project)
    for folder in ("data/prepared", "data/subset"):
        assert json.loads((project / folder / "meta.json").read_text())["classes"] == names
    assert json.loads((project / "models/model.json").read_text())["classes"] == names
    found = read_csv(project / "results/evaluate/predictions.csv")
    truth = {
        (split, index): path.split("/")[0]
        for split in ("val", "test")
        for index, path in enumerate(PackedSplit(project / "data/prepared", split).paths)
    }
    assert {(row["split"], int(row["index"])): row["label"] for row in found} == truth
    assert {row["prediction"] for row in found} <= set(names)
    per_class = read_csv(project / "results/evaluate/per_class.csv")
    assert {row["class"] for row in per_class} == set(names)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04", "labels.csv is a table of Excel, or an archive: save it as CSV"),
        (b"\x1f\x8b\x08\x00", "labels.csv is packed with gzip: unpack it with gunzip"),
    ],
)
def test_what_is_no_text_is_named(project: Path, root: Path, start: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare(project, root, start + b"xl/workbook.xml")


def test_a_row_that_names_a_folder_is_what_is_wrong(project: Path, root: Path) -> None:
    """It said to remove the folder."""
    with pytest.raises(InputError, match=r"cat cannot be used: .* a folder: correct the row"):
        prepare(project, root, GOOD + "cat,cat\n")


def test_a_group_of_blanks_is_none(project: Path, root: Path) -> None:
    blank = prepare(project, root, with_column("site", lambda n: " "), csv_group_column="site")
    alone = prepare(project, root, with_column("site", lambda n: ""), csv_group_column="site")
    assert by_path(blank) == by_path(alone)
