"""The space of a random search, what its trials draw, and the leaderboard."""

from pathlib import Path

import numpy as np
import pytest

from src.base.imports import ROOT
from src.experiments.search import leaderboard, space
from src.plumbing.errors import InputError

SPACE = """
lr: {log_uniform: [1e-4, 1e-2]}
epochs: {integer: [1, 3]}
optimizer: {choice: [adamw, sgd]}
momentum: {uniform: [0.8, 0.98], if: {optimizer: sgd}}
drop_rate: {choice: [0, 0.1], if: {model: resnet10t}}
"""
FIXED = {"model": "resnet10t"}


def space_of(text: str, folder: Path) -> list[space.Dimension]:
    file = folder / "search.yaml"
    file.write_text(text)
    return space.read(file)


def test_the_space_of_the_repository_is_accepted() -> None:
    assert {"lr", "optimizer"} <= {item.key for item in space.read(ROOT / space.FILE)}


def test_draws_are_a_function_of_seed_and_number(tmp_path: Path) -> None:
    dimensions = space_of(SPACE, tmp_path)
    few, many = (space.trials(dimensions, 3, count, FIXED) for count in (5, 40))
    assert many[:5] == few
    assert space.trials(dimensions, 4, 5, FIXED) != few
    # Another key in the space changes no value of the ones that were there.
    wider = space_of(SPACE + "weight_decay: {uniform: [0, 1]}\n", tmp_path)
    for old, new in zip(few, space.trials(wider, 3, 5, FIXED), strict=True):
        assert old.items() <= new.items()


def test_values_follow_their_distribution_and_conditions(tmp_path: Path) -> None:
    dimensions = space_of(SPACE, tmp_path)
    drawn = space.trials(dimensions, 0, 400, FIXED)
    assert all(("momentum" in trial) == (trial["optimizer"] == "sgd") for trial in drawn)
    assert all(1e-4 <= float(trial["lr"]) <= 1e-2 for trial in drawn)
    assert {trial["epochs"] for trial in drawn} == {"1", "2", "3"}
    below = sum(float(trial["lr"]) < 1e-3 for trial in drawn)
    assert 150 < below < 250  # half of them lie below the geometric mean, +- 5 sigma
    assert all("drop_rate" in trial for trial in drawn)
    own = space.trials(dimensions, 0, 20, {"model": "own"})
    assert not any("drop_rate" in trial for trial in own)


def test_a_condition_on_a_switch_that_is_not_varied(tmp_path: Path) -> None:
    dimensions = space_of("mixup: {uniform: [0.1, 0.4], if: {augment_flip: true}}", tmp_path)
    assert space.draw(dimensions, 0, 0, {"augment_flip": False}) == {}
    assert "mixup" in space.draw(dimensions, 0, 0, {"augment_flip": True})


def test_a_range_that_ends_where_its_key_does(tmp_path: Path) -> None:
    space_of("layer_decay: {uniform: [0.9, 1]}\nmixup: {uniform: [0, 1]}\n", tmp_path)


def test_rounding_does_not_leave_the_range(tmp_path: Path) -> None:
    [item] = space_of("ema: {uniform: [0.99, 0.9999]}", tmp_path)
    drawn = [float(item.at(share / 200)) for share in range(200)]
    assert 0.99 <= min(drawn) < max(drawn) <= 0.9999


def test_trials_are_distinct_until_the_space_is_used_up(tmp_path: Path) -> None:
    dimensions = space_of(
        "optimizer: {choice: [adamw, sgd]}\nepochs: {integer: [1, 3]}\n", tmp_path
    )
    drawn = space.trials(dimensions, 0, 6, FIXED)
    assert len({tuple(trial.items()) for trial in drawn}) == 6
    with pytest.raises(InputError, match="only 6 different combinations, 7 are wanted"):
        space.trials(dimensions, 0, 7, FIXED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold keys"),
        ("lrr: {uniform: [1, 2]}", "unknown key lrr, did you mean lr?"),
        ("lr: {uniforn: [1, 2]}", "lr must have exactly one of .*did you mean uniform?"),
        ("lr: 3", "lr must be {one of"),
        ("lr: {uniform: [2, 1]}", "low < high"),
        ("lr: {uniform: [1]}", r"lr: uniform must be \[low, high\]"),
        ("weight_decay: {log_uniform: [0, 1]}", "low > 0"),
        ("lr: {uniform: [-1, 1]}", "lr must be a number > 0, got '-1'"),
        ("epochs: {integer: [1, 2.5]}", "epochs must be an integer"),
        ("epochs: {choice: [1, 1]}", "different values"),
        ("epochs: {choice: [1, 01]}", "different values"),
        ("lr: {choice: [0.001, 1e-3]}", "different values"),
        ("epochs: {uniform: [1, 5]}", "search.yaml: epochs must be an integer >= 1: take integer,"),
        ("seed: {integer: [0, 9]}", "seed is no dimension"),
        ("prepare.size: {choice: [16, 32]}", "prepare.size is no dimension"),
        ("lr: {choice: [0.1]}\nepochs: {choice: [1]}\nlr: {choice: [1]}", "lr stands there twice"),
        ("lr: {choice: [0.1], choice: [1]}", "choice stands there twice"),
        ("momentum: {uniform: [0, 0.9], if: {optimiser: sgd}}", "did you mean optimizer?"),
        ("lr: {uniform: [1, 2", "cannot be read"),
        ("machine.workers: {choice: [0, 2]}", "machine.workers is no dimension: it changes no"),
        ("class_weights: {choice: [none, [1, 2]]}", "must be a list of single values, not of"),
        (
            "optimizer: {choice: [adamw, sgd]}\nmomentum: {choice: [0], if: {optimizer: sgdp}}",
            "momentum: optimizer is never sgdp: add it to its choice",
        ),
    ],
)
def test_a_mistake_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        space_of(text, tmp_path)


def row(name: str, accuracy: float | None, **values: str) -> leaderboard.Row:
    if accuracy is None:
        return leaderboard.Row(name, "failed", values, {})
    interval = {"accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
    metrics = {"n": 360, "accuracy": accuracy, **interval, "log_loss": 1 - accuracy}
    return leaderboard.Row(name, "finished", values, metrics)


def test_the_leaderboard_says_what_chance_can_do(tmp_path: Path) -> None:
    dimensions = space_of(SPACE, tmp_path)
    rows = leaderboard.ranked(
        [
            row("a-0", 0.9, lr="0.001", optimizer="adamw"),
            row("a-1", None, lr="0.01"),
            row("a-2", 0.95, lr="0.002", optimizer="sgd", momentum="0.9"),
            row("a-3", 0.94, lr="0.003", optimizer="adamw"),
        ]
    )
    assert [item.name for item in rows] == ["a-2", "a-3", "a-0", "a-1"]
    correct = {item.name: np.arange(360) < round(360 * item.accuracy) for item in rows[:3]}
    lines = leaderboard.lines(rows, [item.key for item in dimensions], {"epochs": "5"}, correct)
    assert [("=" in line) for line in lines[1:4]] == [False, True, False]
    assert any("1 have no result: `dvc queue logs a-1`" in line for line in lines)
    assert any("= 1 of 2 others cannot be told from the best on these 360" in s for s in lines)
    options = "-S epochs=5 -S lr=0.002 -S optimizer=sgd -S momentum=0.9"
    assert lines[-1] == f"python -m src.seeds 5 {options}"
    few = leaderboard.lines(rows, [item.key for item in dimensions], {}, {"a-3": correct["a-3"]})
    assert not any("=" in line for line in few[1:4])  # the best has no predictions here
    assert not any("cannot be told" in line for line in few)
    header, cells = leaderboard.table(rows, ["lr", "momentum"])
    assert len({len(header), *map(len, cells)}) == 1
    assert leaderboard.draw(rows, dimensions).startswith(b"\x89PNG")


def test_trials_that_are_alike_are_rarely_distinct_from_the_best_of_them() -> None:
    """20 equal nets, 200 searches: uncorrected for the choice, nearly all would name some."""
    draws = np.random.default_rng(0)
    distinct = 0
    for _ in range(200):
        correct = {f"a-{i}": hits for i, hits in enumerate(draws.random((20, 360)) < 0.9)}
        best = max(correct, key=lambda name: correct[name].sum())
        distinct += len(leaderboard.not_worse(best, correct)) < 19
    assert distinct <= 0.05 * 200


def test_a_trial_that_is_far_behind_is_distinct_from_the_best() -> None:
    draws = np.random.default_rng(0)
    correct = {f"a-{i}": draws.random(360) < (0.95 if i else 0.8) for i in range(20)}
    best = max(correct, key=lambda name: correct[name].sum())
    assert set(correct) - leaderboard.not_worse(best, correct) == {"a-0", best}


def test_trials_on_grouped_images_are_told_apart_by_groups() -> None:
    """One group of 40 of 80 images decides: McNemar's test takes it for 40 images."""
    groups = np.concatenate([np.zeros(40, int), np.arange(1, 41)])
    correct = {"a-0": np.ones(80, bool), "a-1": groups > 0}
    assert leaderboard.not_worse("a-0", correct) == set()
    assert leaderboard.not_worse("a-0", correct, groups) == {"a-1"}
    rows = [row("a-0", 1.0, lr="1"), row("a-1", 0.5, lr="2")]
    assert "(over 41 groups, corrected" in "\n".join(
        leaderboard.lines(rows, ["lr"], {}, correct, groups)
    )
