"""From what a table writes to files: patterns, and what a line says of paths that lead nowhere."""

import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from src.plumbing.errors import InputError
from tests.conftest import packed, python, set_params
from tests.preparation.image_folders import by_path, read_csv, write_images

ANIMALS = ("cat", "dog")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`images/cat_000.png` and so on, of 30 cats and 30 dogs."""
    write_images(tmp_path / "folders", dict.fromkeys(ANIMALS, 30))
    (tmp_path / "data/raw/images").mkdir(parents=True)
    for path in (tmp_path / "folders").rglob("*.png"):
        path.rename(tmp_path / f"data/raw/images/{path.parent.name}_{path.name}")
    return tmp_path / "data/raw"


def write_table(root: Path, cell: Callable[[str, int], str]) -> None:
    rows = [f"{cell(name, n)},{name},{n}" for name in ANIMALS for n in range(30)]
    (root / "labels.csv").write_text("\n".join(["id,label,number", *rows]) + "\n")


def prepare(project: Path, root: Path, **values: object) -> dict[str, str]:
    set_params(project, source="csv", path=root, csv_path_column="id", **values)
    return by_path(packed(project))


def refused(project: Path, root: Path, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        prepare(project, root, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pattern_in(line: str) -> str:
    return line.partition("prepare.csv_path_pattern to '")[2].partition("'")[0]


def test_ids_with_a_folder_and_an_ending(project: Path, root: Path) -> None:
    """The example: `id,label` and `images/<id>.png`. The line names what was tried and the way."""
    write_table(root, lambda name, n: f"{name}_{n:03d}")
    line = refused(project, root, on_bad="skip")
    assert line == (
        f"{root}/labels.csv: no path in column id leads to a file in {root}: tried {root}/cat_000; "
        "set prepare.csv_path_pattern to 'images/*.png', which finds 60 of 60 rows"
    )
    found = prepare(project, root, csv_path_pattern=f"'{pattern_in(line)}'")
    assert len(found) == 60
    assert "images/cat_000.png" in found


def test_ids_of_files_with_several_endings(project: Path, root: Path) -> None:
    """A relative: no one ending fits all."""
    for number in range(10):
        path = root / f"images/dog_{number:03d}.png"
        path.rename(path.with_suffix(".JPG"))
    write_table(root, lambda name, n: f"{name}_{n:03d}")
    for values in ({}, {"csv_path_pattern": "'images/*.png'"}):
        line = refused(project, root, **values)
        assert "set prepare.csv_path_pattern to 'images/*.*', which finds 60 of 60 rows" in line
    found = prepare(project, root, csv_path_pattern=f"'{pattern_in(line)}'")
    assert {"images/cat_000.png", "images/dog_000.JPG"} < set(found)
    shutil.copy(root / "images/cat_000.png", root / "images/cat_000.jpg")
    line = refused(project, root)
    assert "several files fit its path (images/cat_000.jpg, images/cat_000.png)" in line


def test_a_folder_that_another_column_names(project: Path, root: Path) -> None:
    """A relative: `<label>/<id>.png`, also in a table that is sorted by label."""
    for name in ANIMALS:
        (root / name).mkdir()
    for path in (root / "images").iterdir():
        name, _, number = path.name.partition("_")
        path.rename(root / name / f"{name}{number}")
    write_table(root, lambda name, n: f"{name}{n:03d}")
    line = refused(project, root)
    assert pattern_in(line) == "{label}/*.png"
    assert "cat/cat000.png" in prepare(project, root, csv_path_pattern="'{label}/*.png'")
    line = refused(project, root, csv_path_pattern="'{lable}/*.png'")
    assert "has no column lable (prepare.csv_path_pattern); its first line must name" in line


@pytest.mark.parametrize(
    ("before", "advice"),
    [
        ("raw/", "set prepare.path to {above} and prepare.csv_file to raw/labels.csv"),
        ("/home/somebody/set/", "take '/home/somebody/set/' off the paths, which start at {root}"),
        ("C:\\set\\", "take 'C:/set/' off the paths, which start at {root}"),
    ],
)
def test_paths_that_start_elsewhere(project: Path, root: Path, before: str, advice: str) -> None:
    """A relative: folders too many, or of another machine."""
    write_table(root, lambda name, n: f"{before}images/{name}_{n:03d}.png")
    line = refused(project, root)
    assert line.endswith("; " + advice.format(above=root.parent, root=root))
    if before == "raw/":
        assert len(prepare(project, root.parent, csv_file="raw/labels.csv")) == 60


@pytest.mark.parametrize(
    ("called", "written"),
    [
        ("cat_000.PNG", "cat_000.png"),
        ("cat_000.png", "cat_000.jpg"),
        (unicodedata.normalize("NFD", "caté.png"), "caté.png"),
    ],
)
def test_one_path_that_is_written_otherwise(
    project: Path, root: Path, called: str, written: str
) -> None:
    """A relative: one row of many. Its line names what was tried and the file that is meant."""
    (root / "images/cat_000.png").rename(root / "images" / called)
    write_table(root, lambda name, n: f"images/{name}_{n:03d}.png")
    table = (root / "labels.csv").read_text().replace("cat_000.png", written)
    (root / "labels.csv").write_text(table)
    line = refused(project, root)
    assert line.startswith(
        f"prepare: images/{written} cannot be used: it does not exist (tried {root}/images/"
        f"{written}): correct the row (line 2), or write images/{called} for 'images/{written}', "
        "as the file is called; see "
    )
    assert len(prepare(project, root, on_bad="skip")) == 59
    [row] = read_csv(project / "data/prepared/rejects.csv")
    assert row["reason"] == f"it does not exist (tried {root}/images/{written})"


def test_paths_of_which_nothing_is_there(project: Path, root: Path) -> None:
    write_table(root, lambda name, n: f"{name}/{n}")
    line = refused(project, root)
    assert line.endswith(
        f"tried {root}/cat/0; correct them, or set prepare.csv_path_pattern, such as 'images/*.jpg'"
    )
    write_table(root, lambda name, n: "")
    assert "its row has no path" in refused(project, root, csv_path_pattern="'images/*.png'")


def test_a_pattern_has_a_place_for_the_column(project: Path, root: Path) -> None:
    line = refused(project, root, csv_path_pattern="images/x.jpg")
    assert line == (
        "params.yaml: prepare.csv_path_pattern must be none or a path with exactly one * in it "
        "(and .* in place of an ending; {name} is what column name says), got 'images/x.jpg'"
    )
    assert "a path with exactly one * in it" in refused(project, root, csv_path_pattern="a/*/*.png")


@pytest.mark.parametrize(
    ("cell", "rest"),
    [
        (
            "{}",
            "images/0{first}.png lies there for '{first}': write '0{first}', with all its zeros, "
            "and set prepare.csv_path_pattern to 'images/*.png', which finds 60 of 60 rows",
        ),
        (
            "images/{}.png",
            "images/0{first}.png lies there for 'images/{first}.png': write 'images/0{first}.png', "
            "with all its zeros",
        ),
    ],
)
def test_numbers_without_their_zeros(project: Path, root: Path, cell: str, rest: str) -> None:
    """As spreadsheets write them: ids, and relatives in paths; and one of them alone."""
    for number, path in enumerate(sorted((root / "images").iterdir())):
        path.rename(root / f"images/{number:04d}.png")

    def written(name: str, n: int) -> str:
        return cell.format(n + 30 * (name == "dog"))

    write_table(root, written)
    line = refused(project, root)
    assert rest.replace("0{first}", "0000").replace("{first}", "0") in line
    ids = {number: f"{number:04d}" for number in range(60) if number != 7}
    write_table(root, lambda name, n: cell.format(ids.get(n + 30 * (name == "dog"), "7")))
    values = {"csv_path_pattern": "'images/*.png'"} if cell == "{}" else {}
    assert "images/0007.png" in refused(project, root, **values)


# As in test_hostile.py.
CLOSED = """
import encodings.utf_8_sig, os
from src.images.packing import FILES
from src.plumbing import params
from src.plumbing.errors import InputError
from src.preparation.sources.table import csv_table
values = params.load()
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    csv_table(values, FILES)
except InputError as error:
    print(error)
"""


def test_a_folder_that_cannot_be_entered_is_the_cause(project: Path) -> None:
    """Of all rows, and of some."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        write_images(root, {"cat": 2, "dog": 2})
        rows = [f"{animal}/{n:03d}.png,{animal}" for animal in ANIMALS for n in range(2)]
        (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
        set_params(project, source="csv", path=root)
        for closed in (["dog"], ["cat", "dog"]):
            for folder in closed:
                (root / folder).chmod(0)
            ended = python(project, "-c", CLOSED)
            for folder in closed:
                (root / folder).chmod(0o700)
            assert ended.stdout == (
                f"{root}/{closed[0]}: there is no permission to enter it: `chmod u+rx` the folder\n"
            ), ended.stderr


def test_of_a_large_table_some_rows_are_compared(project: Path, root: Path) -> None:
    """Rows from all over it: the first ones could all lie in one folder."""
    for number in range(500):
        shutil.copy(root / "images/cat_000.png", root / f"images/x{number}.png")
    rows = [f"images/x{n}.png,cat,0" for n in range(60)] + [f"x{n},dog,0" for n in range(60, 500)]
    (root / "labels.csv").write_text("\n".join(["id,label,number", *rows]))
    assert pattern_in(refused(project, root)) == "images/*.png"
