"""Groups of samples: kept in the packed data, and numbered for resampling."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from src.data.groups import clusters, is_one_group
from src.preparation.sources.own import Sample
from src.yours import source as yours
from tests.conftest import packed, set_params
from tests.preparation.image_folders import prepare_folder, read_csv, write_images


def test_a_sample_without_a_group_is_alone() -> None:
    found = clusters(["a", "", "b", "a", "", "b"])
    assert found is not None
    assert found.tolist() == [0, 1, 2, 0, 3, 2]
    assert clusters(None) is None
    assert clusters(["a", "b", "", ""]) is None  # each alone
    assert clusters(["a", "a"]) is None
    assert [is_one_group(names) for names in (["a", "a"], ["a"], ["", ""], ["a", "b"], None)] == [
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {"cat": 60, "dog": 60})


def test_the_groups_of_a_table_are_kept(project: Path, images: Path) -> None:
    rows = [
        f"{name}/{number:03d}.png,{name},{f'P{number // 3}' if number > 5 else ''}"
        for name in ("cat", "dog")
        for number in range(60)
    ]
    (images / "labels.csv").write_text("path,label,patient\n" + "\n".join(rows))
    set_params(project, source="csv", path=images, csv_group_column="patient")
    wanted = {row.split(",")[0]: row.split(",")[2] for row in rows}
    for data in packed(project).values():
        assert data.groups is not None
        assert data.groups == [wanted[path] for path in data.paths]
        assert clusters(data.groups) is not None


def test_the_groups_of_an_own_source_are_kept(
    project: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own_source(params: dict) -> Iterator[Sample]:
        for path in sorted(images.rglob("*.png")):
            yield Sample(path, path.parent.name, group=f"film\u00a0{int(path.stem) // 4}")

    monkeypatch.setattr(yours, "own_source", own_source)
    set_params(project, source="own", path=images)
    for data in packed(project).values():
        assert data.groups is not None
        assert data.groups == [f"film\u00a0{int(Path(path).stem) // 4}" for path in data.paths]


def test_without_groups_the_packed_data_are_as_they_were(project: Path, images: Path) -> None:
    data = prepare_folder(project, images)["val"]
    assert data.groups is None
    assert list(read_csv(data.folder / "val.csv")[0]) == ["index", "label", "path", "sha256"]
    rows = [f"{name}/{number:03d}.png,{name}" for name in ("cat", "dog") for number in range(60)]
    (images / "labels.csv").write_text("path,label\n" + "\n".join(rows))
    set_params(project, source="csv", path=images)
    assert packed(project)["val"].groups is None
