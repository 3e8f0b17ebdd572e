"""Splits by hash that are far from what is wanted, and classes with almost nothing in one."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from src.data.split import split_of
from src.plumbing.errors import InputError
from src.preparation.ledger import Ledger
from src.preparation.shares import closest, far_from_wanted
from src.preparation.sources.base import Item
from tests.conftest import packed, run_stage, set_params
from tests.preparation.image_folders import (
    by_path,
    prepare_folder,
    write_images,
    write_splits,
)

Group = tuple[str, dict[int, int]]  # its name, and how many samples of each class


def ledger_of(groups: list[Group], seed: int) -> Ledger:
    """The samples of the groups, placed; those of a group without a name are alone."""
    ledger = Ledger([f"class {k}" for k in range(3)], seed, shares=(0.2, 0.2))
    number = 0
    for name, counts in groups:
        for label, count in counts.items():
            for _ in range(count):
                item = Item(f"{number}.png", label, lambda: (b"", None), None, name or None)
                assert ledger.place(item, f"{number:064x}")
                number += 1
    return ledger


def senders(count: int = 40) -> list[Group]:
    """Groups of 2 to 60 samples, each mostly of one class, as of people who send photos."""
    draws = np.random.default_rng(0)
    sizes = np.maximum(2, draws.geometric(0.07, count))
    return [
        (f"sender {n}", {n % 3: int(size), (n + 1) % 3: int(size) // 4})
        for n, size in enumerate(sizes.tolist())
    ]


def counts_of(ledger: Ledger) -> np.ndarray:
    return np.array([[ledger.per_class[s][k] for k in range(3)] for s in ("train", "val", "test")])


def is_far(ledger: Ledger) -> bool:
    """Whether a split, all classes together, is off by a fifth of its share."""
    sums = counts_of(ledger).sum(axis=1)
    return bool((np.abs(sums / sums.sum() / [0.6, 0.2, 0.2] - 1) > 0.2).any())


def seed_in(line: str) -> int:
    found = re.search(r"prepare\.split_seed=(\d+)", line)
    assert found, line
    return int(found[1])


def test_groups_far_from_their_shares_name_a_seed_that_is_close() -> None:
    """The example: what is said of the seed is what it gives, in shares and in each class."""
    seed, line = next(
        (seed, line)
        for seed in range(50)
        if (line := far_from_wanted(ledger_of(senders(), seed))) and "split_seed=" in line
    )
    before = counts_of(ledger_of(senders(), seed))
    total = before.sum()
    assert line.startswith(
        f"by the hash of the groups train/val/test hold {'/'.join(map(str, before.sum(axis=1)))} "
        f"samples, where 60/20/20 % are {total * 0.6:.0f}/{total * 0.2:.0f}/{total * 0.2:.0f}: "
    )
    after = counts_of(ledger_of(senders(), seed_in(line)))
    assert f"gives {'/'.join(map(str, after.sum(axis=1)))}, and of class 'class " in line
    wanted = np.array([0.6, 0.2, 0.2])
    assert np.abs(after.sum(axis=1) / total - wanted).max() < 0.05
    assert np.abs(after / after.sum(axis=0) - wanted[:, None]).max() < 0.12
    assert far_from_wanted(ledger_of(senders(), seed_in(line))) is None


def test_a_class_of_few_groups_is_looked_at_though_the_sums_fit() -> None:
    """A relative: 3 of a class in train and 13 in test, in splits whose sums are as wanted."""
    many: list[Group] = [(f"many {n}", {0: 2, 1: 2}) for n in range(150)]
    rare: list[Group] = [(f"rare {n}", {2: 2}) for n in range(8)]
    seed, line = next(
        (seed, line)
        for seed in range(200)
        if not is_far(ledger := ledger_of(many + rare, seed)) and (line := far_from_wanted(ledger))
    )
    before, after = (counts_of(ledger_of(many + rare, s))[:, 2] for s in (seed, seed_in(line)))
    assert before.tolist() != after.tolist()
    shown = ["/".join(map(str, counts)) for counts in (after, before)]
    assert f"of class 'class 2' {shown[0]} in place of {shown[1]}" in line
    assert np.abs(after - np.array([9.6, 3.2, 3.2])).max() < 2.5


def test_samples_without_groups_are_looked_at_too() -> None:
    """A relative: a small set, where the hash of the content is as far off."""
    alone: list[Group] = [("", {n % 3: 1}) for n in range(45)]
    found = (far_from_wanted(ledger_of(alone, seed)) for seed in range(50))
    line = next(line for line in found if line)
    assert "by the hash of the samples train/val/test hold" in line
    assert far_from_wanted(ledger_of(alone, seed_in(line))) is None


def test_a_new_group_moves_nothing_and_enough_samples_are_close() -> None:
    def place_of(groups: list[Group]) -> dict[str, str]:
        database = ledger_of(groups, 3)._database
        return dict(database.execute("SELECT name, split FROM groups"))

    before = place_of(senders())
    after = place_of([("new", {0: 500}), *senders(), ("newer", {1: 3})])
    assert {name: after[name] for name in before} == before
    assert far_from_wanted(ledger_of([("", {n % 3: 1}) for n in range(3000)], 0)) is None


def test_one_group_with_nearly_all_says_that_no_seed_helps() -> None:
    groups: list[Group] = [("all", {0: 300, 1: 300, 2: 300}), *senders(6)]
    best = closest(ledger_of(groups, 0))
    assert best
    line = far_from_wanted(ledger_of(groups, best[0]))
    assert line
    assert line.endswith("no other prepare.split_seed comes much closer, as its groups are few or "
                         "unequal")  # fmt: skip


def test_too_many_groups_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.preparation.shares.MOST_HASHES", 500)
    assert closest(ledger_of(senders(), 0)) is None
    monkeypatch.setattr("src.preparation.shares.MOST_HASHES", 50 * 40)
    found = closest(ledger_of(senders(), 0))
    assert found
    assert found[0] < 50


def grouped(project: Path, root: Path, **values: object) -> None:
    rows = [f"{n:03d}.png,{'cat' if n % 2 else 'dog'},G{n // 12}" for n in range(96)]
    (root / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    set_params(project, source="csv", path=root, csv_group_column="group", **values)


def test_prepare_says_it_on_the_terminal_and_in_the_table(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    write_images(tmp_path, {"images": 96})
    grouped(project, root)
    run_stage(project, "prepare")
    [line] = [line for line in capsys.readouterr().out.splitlines() if "by the hash" in line]
    assert line.removeprefix("prepare: ") in (project / "data/prepared/quality.md").read_text()
    set_params(project, split_seed=seed_in(line))
    counts = {split: len(data) for split, data in packed(project).items()}
    assert f"gives {counts['train']}/{counts['val']}/{counts['test']}" in line


def test_a_split_without_a_group_names_the_seed_that_is_closest(
    project: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    write_images(tmp_path, {"images": 96})
    names = [f"group G{n}" for n in range(8)]
    empty = next(s for s in range(99) if len({split_of(n, s, 0.2, 0.2) for n in names}) < 3)
    grouped(project, root, split_seed=empty)
    words = r"which gives every split every class and comes closest .*train/val/test 60/12/24\)"
    with pytest.raises(InputError, match=words) as caught:
        packed(project)
    set_params(project, split_seed=seed_in(str(caught.value)))
    assert [len(data) for data in packed(project).values()] == [60, 12, 24]


def test_a_given_split_is_no_share(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relative: only what goes by hash is compared, and only with what it should be."""
    images = write_splits(tmp_path / "images", ("train", "test"), 10)
    for seed in range(20):
        with suppress(InputError):  # a split without a class
            prepare_folder(project, images, split_seed=seed)
        if "by the hash" in (said := capsys.readouterr().out):
            break
    assert "by the hash of the samples train/val hold" in said
    assert "where 80/20 % are 16/4" in said
    three = write_splits(tmp_path / "three", ("train", "val", "test"), 10)
    prepare_folder(project, three)
    assert "by the hash" not in capsys.readouterr().out


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_with_almost_nothing_in_a_split_is_named(
    project: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example; its relative, a split that is given."""
    images = write_splits(tmp_path / "images", ("train", "val", "test"), 8)
    for path in sorted((images / split / "dog").iterdir())[2:]:
        path.unlink()
    prepare_folder(project, images)
    words = f"class 'dog' has 2 samples in {split}: one image decides what is measured on such a"
    assert words in capsys.readouterr().out
    sorted((images / split / "dog").iterdir())[0].unlink()
    for path in sorted((images / split / "cat").iterdir())[2:]:
        path.unlink()
    set_params(project)
    run_stage(project, "prepare")
    words = f"2 of 2 classes have at most 2 samples in {split} (the fewest: 'dog', 1)"
    assert words in capsys.readouterr().out
    assert words in (project / "data/prepared/quality.md").read_text()
    assert len(by_path(packed(project))) == 35
