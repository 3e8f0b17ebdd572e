"""`prepare.source: own`: what src/yours/source.py yields is packed; a mistake there is one line."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.packed import PackedSplit
from src.data.split import SPLITS
from src.images.fit import fit_image
from src.images.packing import FILES, OwnImage, Packed, Packer
from src.plumbing import params
from src.plumbing.errors import InputError
from src.preparation.sources.base import Item
from src.preparation.sources.own import Sample, own_samples
from src.yours import source as yours
from tests.conftest import packed, python, set_params
from tests.preparation.image_folders import by_path, report, write_images
from tests.preparation.own_sources import file_names

EXAMPLES = Path(__file__).parent / "own_sources"
Load = Callable[[], Any]
START = "from src.preparation.sources.own import Sample\n"


def run(project: Path, text: str, **values: object) -> tuple[int, str]:
    """Exit code and stderr of `prepare` with this src/yours/source.py."""
    (project / "src/yours/source.py").write_text(text)
    set_params(project, source="own", **values)
    ended = python(project, "-m", "src.prepare")
    return ended.returncode, ended.stderr


def splits_of(project: Path) -> dict[str, PackedSplit]:
    return {split: PackedSplit(project / "data/prepared", split) for split in SPLITS}


def labels(project: Path) -> dict[str, str]:
    return {
        path: data.meta["classes"][label]
        for data in splits_of(project).values()
        for path, label in zip(data.paths, data.labels, strict=True)
    }


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, PackedSplit]]:
    """Packs the samples of a function in place of own_source, in this process."""

    def pack(function: Any, **values: object) -> dict[str, PackedSplit]:
        monkeypatch.setattr(yours, "own_source", function)
        set_params(project, source="own", **values)
        return packed(project)

    return pack


def grey(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (9, 12), dtype=np.uint8)


def some(**changed: Any) -> list[Sample]:
    """60 images of two classes; the first of them has the given fields."""
    samples = [Sample(grey(n), "cat" if n % 2 else "dog", name=f"{n:02d}") for n in range(60)]
    return [Sample(**(vars(samples[0]) | changed)), *samples[1:]]


def test_as_it_is_it_gives_the_digits_and_the_same_bytes_as_the_built_in_source(
    project: Path,
) -> None:
    """What stands in the template's source.py runs on a fresh clone, without a file."""
    set_params(project, source="digits")
    packed(project)
    before = {path.name: path.read_bytes() for path in (project / "data/prepared").iterdir()}
    if "load_digits" not in Path(yours.__file__).read_text():
        pytest.skip("src/yours/source.py is the user's")
    set_params(project, source="own")
    packed(project)
    for name, content in before.items():
        if name not in ("meta.json", "report.json"):
            assert (project / "data/prepared" / name).read_bytes() == content


def test_the_class_in_the_name_of_a_file(project: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "file_names.py").read_text()
    assert len(text.splitlines()) < 15
    images = write_images(tmp_path / "images", {"cat": 30, "guinea_pig": 30})
    for path in images.glob("*/*.png"):
        path.rename(images / f"{path.parent.name}_{path.name}")
    assert run(project, text, path=images) == (0, "")
    names = {f"{name}_{n:03d}.png": name for name in ("cat", "guinea_pig") for n in range(30)}
    assert labels(project) == names


def test_folders_of_people(project: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "people.py").read_text()
    for number in range(20):
        folder = tmp_path / f"images/person {number}"
        write_images(folder, {"ill": 3, "well": 3}, size=(9, 9 + number))
    assert run(project, text, path=tmp_path / "images") == (0, "")
    splits = {split: set(data.paths) for split, data in splits_of(project).items()}
    people = {split: {path.split("/")[0] for path in paths} for split, paths in splits.items()}
    assert sum(map(len, people.values())) == 20
    assert set(labels(project).values()) == {"ill", "well"}


def test_a_table_of_paths(project: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "table.py").read_text()
    assert len(text.splitlines()) < 15
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    rows = [
        f"{name}/{n:03d}.png,{name.upper()},{'test' if n < 6 else ''},{name} {n // 2}\n"
        for name in ("cat", "dog")
        for n in range(30)
    ]
    (images / "photos.csv").write_text("file,species,split,site\n" + "".join(rows))
    assert run(project, text, path=images) == (0, "")
    assert labels(project)["cat/007.png"] == "CAT"
    found = by_path(splits_of(project))
    assert len(found) == 60
    assert {path for path, split in found.items() if split == "test"} == {
        row.partition(",")[0] for row in rows if ",test," in row
    }
    for n in range(6, 30, 2):
        assert found[f"cat/{n:03d}.png"] == found[f"cat/{n + 1:03d}.png"]
    assert report(project)["given_splits"] == ["test"]


def test_workers_call_functions_of_the_module(project: Path) -> None:
    """Long enough for them to start; the samples come in the order of their names."""
    text = (
        "import time\nfrom functools import partial\nfrom PIL import Image\n" + START +
        "def image(n):\n"
        "    time.sleep(0.05)\n"
        "    return Image.effect_noise((20, 20), 5 + n)\n"
        "def own_source(params):\n"
        "    for n in reversed(range(60)):\n"
        "        yield Sample(partial(image, n), 'ab'[n % 2], name=f'{n:03d}')\n"
    )  # fmt: skip
    assert run(project, text, prepare_workers=2) == (0, "")
    for data in splits_of(project).values():
        assert data.paths == sorted(data.paths)
    assert len(labels(project)) == 60


def test_every_form_of_an_image() -> None:
    array = grey(100)
    forms = [
        array,
        array[:, :, None],
        np.dstack([array] * 3),
        np.dstack([array] * 3 + [array * 0 + 255]),
        np.asfortranarray(array),
        Image.fromarray(array),
        Image.fromarray(array).convert("RGBA"),
        partial(Image.fromarray, array),
        partial(np.copy, array),
    ]
    expected = fit_image(Image.fromarray(array), 16, 1, "crop", "bilinear", 1.0)
    for result in Packer(16, 1, "crop", "bilinear", 1.0)(
        Item(str(n), 0, OwnImage(form)) for n, form in enumerate(forms)
    ):
        assert isinstance(result, Packed)
        assert np.array_equal(result.row, expected)


def test_the_order_changes_nothing(own: Callable[..., dict[str, PackedSplit]]) -> None:
    one = own(lambda _: some())
    other = own(lambda _: some()[::-1])
    for split in SPLITS:
        assert one[split].paths == other[split].paths
        assert np.array_equal(one[split].sha256, other[split].sha256)


def test_splits_and_groups(own: Callable[..., dict[str, PackedSplit]]) -> None:
    """`train` and None are one: what no sample names comes out of them by hash."""

    def samples(_: Any) -> list[Sample]:
        splits = ("train", None, "test")
        return [
            Sample(one.content, one.label, splits[n // 2 % 3], f"g{n // 2}", one.name)
            for n, one in enumerate(some())
        ]

    found = by_path(own(samples))
    assert {n for n in found if found[n] == "test"} == {
        f"{n:02d}" for n in range(60) if n // 2 % 3 == 2
    }
    assert "val" in found.values()
    assert all(found[f"{n:02d}"] == found[f"{n + 1:02d}"] for n in range(0, 60, 2))


def test_a_group_called_nan_is_no_group(own: Callable[..., dict[str, PackedSplit]]) -> None:
    """As pandas gives an empty cell."""

    def samples(group: str | None) -> list[Sample]:
        return [Sample(one.content, one.label, None, group, one.name) for one in some()]

    assert by_path(own(lambda _: samples("nan"))) == by_path(own(lambda _: samples(None)))


class Broken:
    def __call__(self) -> None:
        raise ValueError("no\nimage")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"label": "a\rb"}, "the label of 00 must be a text"),
        ({"label": "caf\udce9"}, "the label of 00 must be a text"),
        ({"label": 3}, "the label of 00 must be a text that is not empty, got '3', a int"),
        ({"label": 3.5}, "got '3.5', a float"),
        ({"label": ["cat", "dog"]}, "a list (several labels: this project trains one class a sam"),
        ({"split": "dev"}, "the split of 00 must be train, val, test or None, got 'dev'"),
        ({"split": ""}, "the split of 00 must be train, val, test or None, got ''"),
        ({"split": ["test"]}, "the split of 00 must be train, val, test or None, got ['test']"),
        ({"group": 7}, "the group of 00 must be a text that is not empty, got '7', a int"),
        ({"group": ""}, "the group of 00 must be a text"),
        ({"name": None}, "its sample 1 is no path of a file, and needs a name"),
        ({"name": ""}, "the name must be a text that is not empty, got '', a str"),
        ({"name": 1}, "the name must be a text that is not empty, got '1', a int"),
        ({"name": "01"}, "01 comes twice"),
        ({"content": lambda: grey(0)}, "00 cannot be pickled for a worker process ("),
        ({"content": "/etc/hosts"}, "/etc/hosts does not lie in prepare.path (data/builtin/README"),
        ({"content": Path("data/builtin/README.md")}, "does not lie in prepare.path"),
        ({"label": "cat|dog"}, "holds several labels a sample, such as 'cat|dog' (multi-label"),
    ],
)
def test_a_wrong_sample_is_one_line(
    own: Callable[..., dict[str, PackedSplit]], changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        own(lambda _: some(**changed))
    assert str(caught.value).startswith("src/yours/source.py: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["", " "])
def test_a_sample_without_a_label_is_bad_and_no_mistake_of_the_code(
    own: Callable[..., dict[str, PackedSplit]], label: str
) -> None:
    words = r"^prepare: 00 cannot be used: src/yours/source\.py gives it no label: correct it there"
    with pytest.raises(InputError, match=words):
        own(lambda _: some(label=label))
    assert sum(map(len, own(lambda _: some(label=label), on_bad="skip").values())) == 59
    with pytest.raises(InputError, match="at least two classes, and none of them has a label"):
        own(lambda _: [Sample(grey(0), label, name="x")], on_bad="skip")


def test_a_stray_image_among_files_whose_names_say_the_class_is_left_out(
    own: Callable[..., dict[str, PackedSplit]], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    for path in images.glob("*/*.png"):
        path.rename(images / f"{path.parent.name}_{path.name}")
    shutil.copy(images / "cat_000.png", images / "README.png")
    with pytest.raises(InputError, match=r"README\.png cannot be used: .* gives it no label"):
        own(file_names.own_source, path=images)
    assert sum(map(len, own(file_names.own_source, path=images, on_bad="skip").values())) == 60


def test_the_example_tells_that_it_reads_nothing(project: Path, tmp_path: Path) -> None:
    set_params(project, source="own", path=write_images(tmp_path / "images", {"a": 1, "b": 1}))
    if "load_digits" not in Path(yours.__file__).read_text():
        pytest.skip("src/yours/source.py is the user's")
    with pytest.raises(InputError, match=r"source\.py is still the example, .*digits and reads no"):
        packed(project)


@pytest.mark.parametrize("source", ["digits", "synthetic"])
def test_a_source_without_files_tells_that_it_reads_none(
    project: Path, tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(project, source=source)
    packed(project)
    assert "reads nothing" not in capsys.readouterr().out
    set_params(project, path=tmp_path)
    packed(project)
    said = f"prepare: prepare.source {source} reads nothing in prepare.path ({tmp_path}): for what"
    assert said in capsys.readouterr().out


class Unreadable:
    """Pickles, and does not come back."""

    def __reduce__(self) -> Any:
        return int, ("x",)


def test_a_sample_that_does_not_come_back_from_a_pickle_is_one_line(
    own: Callable[..., dict[str, PackedSplit]],
) -> None:
    with pytest.raises(InputError, match=r"^src/yours/source\.py: 00: ValueError: invalid literal"):
        own(lambda _: some(content=Unreadable()))


def test_texts_of_numpy_are_texts(own: Callable[..., dict[str, PackedSplit]]) -> None:
    own(lambda _: some(label=np.str_("cat"), split=np.str_("train"), group=np.str_("x")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "src/yours/source.py gives no image for it (a NoneType)"),
        (b"bytes", "src/yours/source.py gives no image for it (a bytes)"),
        (np.zeros((4, 4)), "src/yours/source.py gives no image for it (float64 4 x 4): give a "),
        (np.zeros((4, 4, 2), np.uint8), "(uint8 4 x 4 x 2)"),
        (np.zeros((0, 4), np.uint8), "(uint8 0 x 4)"),
        (np.zeros(9, np.uint8), "(uint8 9)"),
        (partial(int, "x"), "src/yours/source.py cannot read it (ValueError: invalid literal"),
        (Broken(), "src/yours/source.py cannot read it (ValueError: no image): correct it there"),
        (print, "src/yours/source.py gives no image for it (a NoneType)"),
    ],
)
def test_what_is_no_image_is_rejected(
    own: Callable[..., dict[str, PackedSplit]], content: Any, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        own(lambda _: some(content=content))
    assert str(caught.value).startswith("prepare: 00 cannot be used: src/yours/source.py ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sum(map(len, own(lambda _: some(content=content), on_bad="skip").values())) == 59


def test_paths_that_lead_nowhere_through_links_or_out(
    own: Callable[..., dict[str, PackedSplit]], project: Path, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", {"cat": 30, "dog": 30})
    (images / "linked").symlink_to(images / "cat")
    shutil.copy(images / "cat/000.png", tmp_path / "outside.png")
    odd = Path(os.fsdecode(os.fsencode(images) + b"/cat/caf\xe9.png"))
    shutil.copy(images / "cat/001.png", odd)

    def samples(extra: Path) -> Callable[[Any], list[Sample]]:
        paths = [path for path in images.glob("[cd]*/0*.png")]
        return lambda _: [*(Sample(p, p.parent.name) for p in paths), Sample(extra, "cat")]

    for extra, words in {
        images / "cat/999.png": "cat/999.png cannot be used: src/yours/source.py names it, and "
        "there is no such file: correct it there",
        images / "cat": "cat cannot be used: src/yours/source.py names it, and there is no such",
        images / "linked/000.png": "linked/000.png cannot be used: its path leads through a link",
        odd: "cat/caf\\xe9.png cannot be used: its name is not UTF-8: rename it",
    }.items():
        with pytest.raises(InputError) as caught:
            own(samples(extra), path=images, on_bad="fail")
        assert str(caught.value).startswith(f"prepare: {words}")
        assert sum(map(len, own(samples(extra), on_bad="skip").values())) == 60
    for extra in (tmp_path / "outside.png", images / "../outside.png"):
        with pytest.raises(
            InputError, match=r"outside.png does not lie in prepare.path \(.*images"
        ):
            own(samples(extra), on_bad="skip")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def own_source(params):\n    return [\n", "src/yours/source.py:2: SyntaxError: '[' was"),
        ("import nosuch\n", "src/yours/source.py:1: ModuleNotFoundError: No module named 'nosuch'"),
        ("1 / 0\n", "src/yours/source.py:1: ZeroDivisionError: division by zero"),
        ("def my_source(params): ...\n", "src/yours/source.py must have a function own_source("),
        ("own_source = 3\n", "src/yours/source.py must have a function own_source(params)"),
        ("def own_source(): ...\n", "src/yours/source.py: TypeError: own_source() takes 0 "),
        ("def own_source(params): ...\n", "own_source: it must yield samples, got a NoneType"),
        ("def own_source(params): return 'abc'\n", "it must yield Sample(...), got a str"),
        ("def own_source(params): yield 'a.png', 'cat'\n", "must yield Sample(...), got a tuple"),
        ("def own_source(params): yield from ()\n", "at least two classes, and there are none"),
        ("def own_source(params):\n    yield Sample(__file__[0], 'a', name='a')\n", "does not lie"),
        ("def own_source(params):\n    yield Sample(1, 'a', name='a')\n", "all samples are"),
        ("def own_source(params):\n    raise OSError('a\\nb')\n    yield\n", ":3: OSError: a b"),
        ("def own_source(params):\n    yield Sample()\n", ":3: TypeError: Sample.__init__() miss"),
        ("def own_source(params):\n    open('no')\n    yield\n", ":3: FileNotFoundError: "),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(project: Path, text: str, words: str) -> None:
    text = START * ("Sample" in text or ":3" in words) + text

    def load() -> Any:
        space: dict[str, Any] = {"__file__": "src/yours/source.py"}
        exec(compile(text, str(project / "src/yours/source.py"), "exec"), space)
        return space.get("own_source")

    set_params(project, source="own")
    with pytest.raises(InputError) as caught:
        own_samples(params.load(project), load, FILES, OwnImage)
    assert str(caught.value).startswith("src/yours/source.py")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_stage_says_it_and_ends_with_2(project: Path) -> None:
    broken = "def own_source(params)\n"
    assert run(project, broken) == (2, "src/yours/source.py:1: SyntaxError: expected ':'\n")
    set_params(project, source="synthetic")  # the file is broken, and nobody uses it
    assert python(project, "-m", "src.prepare").returncode == 0
    renamed = "def its_source(params): ...\n"
    said = "src/yours/source.py must have a function own_source(params)\n"
    assert run(project, renamed) == (2, said)
