"""The tiers of `verify`: outputs, histories, metrics, and other seeds."""

import json
import math

import pytest
import yaml

from src.experiments.verify import tiers

HISTORY = "epoch,train_loss,val_accuracy\n1,{0},0.5\n2,0.3,0.6\n"
GROUP = {
    **{"n": 400, "accuracy": 0.9},
    **{"macro_f1": 0.89, "macro_f1_low": 0.86, "macro_f1_high": 0.92},
    **{"log_loss": 0.3, "log_loss_low": 0.22, "log_loss_high": 0.38},
}
OLD_GROUP = {"n": 400, "accuracy": 0.9}  # of a commit older than the other metrics


def trouble(before: dict, after: dict, first_loss: float = 0.5) -> list[str]:
    """What is outside the numeric tier, of metrics by split and of a first loss that was 0.5."""
    history = HISTORY.format(0.5), HISTORY.format(first_loss)
    return tiers.numeric_trouble(history, (json.dumps(before), json.dumps(after)))


def test_histories_part_where_the_first_number_differs() -> None:
    one = HISTORY.format("0.5")
    assert tiers.first_difference(one, one) == ""
    other = one.replace("0.3,0.6", "0.3,0.7")
    assert tiers.first_difference(one, other) == (
        "the histories part in epoch 2: val_accuracy 0.6 and 0.7"
    )
    assert "2 epochs, the other 1" in tiers.first_difference(one, "".join(one.splitlines(True)[:2]))


@pytest.mark.parametrize(
    ("loss", "val", "test", "lines"),
    [
        (0.5004, {"accuracy": 0.91}, {"accuracy": 0.89}, []),
        (0.55, {}, {}, ["the loss of the first epoch is 0.55 instead of 0.5"]),
        (0.5, {}, {"accuracy": 0.85}, ["test accuracy is 0.85 instead of 0.9 ± 0.042"]),
        (0.5, {"macro_f1": 0.86, "log_loss": 0.4}, {}, []),
        (0.5, {"macro_f1": 0.01}, {}, ["val macro_f1 is 0.01 instead of 0.89 ± 0.043"]),
        (0.5, {"log_loss": 50.0}, {}, ["val log_loss is 50 instead of 0.3 ± 0.12"]),
        (0.5, {"log_loss": math.nan}, {}, ["val log_loss is nan instead of 0.3 ± 0.12"]),
    ],
)
def test_close_numbers_are_enough_on_another_machine(
    loss: float, val: dict[str, float], test: dict[str, float], lines: list[str]
) -> None:
    before = {"val": GROUP, "test": OLD_GROUP}
    assert trouble(before, {"val": GROUP | val, "test": OLD_GROUP | test}, loss) == lines


def test_a_flawless_net_may_miss_an_image() -> None:
    """Its intervals have no width."""
    flawless = {key: 1.0 for key in GROUP if not key.startswith("log")} | {"n": 400}
    loss = dict.fromkeys(("log_loss", "log_loss_low", "log_loss_high"), 0.0)
    missed = {"accuracy": 1 - 1 / 400, "macro_f1": 1 - 1 / 400, "log_loss": 2 / 400}
    before = {**flawless, **loss}
    for after, found in ((missed, []), ({**missed, "log_loss": 4 / 400}, ["val log_loss"])):
        lines = trouble({"val": before}, {"val": {**before, **after}})
        assert [line.partition(" is ")[0] for line in lines] == found


def test_other_seeds_decide_last() -> None:
    def said(accuracy: float, seeds: list[float]) -> str:
        metrics = [json.dumps({"val": GROUP | {"accuracy": value}}) for value in (0.9, accuracy)]
        return tiers.statistical_trouble((metrics[0], metrics[1]), seeds)

    assert said(0.93, [0.90, 0.91, 0.92, 0.91]) == ""
    assert "val accuracy 0.99 is outside" in said(0.99, [0.90, 0.91, 0.92, 0.91])
    # Three seeds that are all alike do not mean that one image is too many.
    assert said(0.9 + 1 / 360, [0.9] * 3) == ""


def test_outputs_are_named_with_their_stage() -> None:
    outs = {"models/model.json": "0", "models/model.safetensors": "0"}

    def lock(**changed: str) -> str:
        entry = {
            "cmd": "a",
            "outs": [{"path": p, "md5": changed.get(p, m)} for p, m in outs.items()],
        }
        return yaml.safe_dump({"stages": {"prepare": {"cmd": "b"}, "train": entry}})

    assert tiers.differing_outputs(lock(), lock()) == []
    found = tiers.differing_outputs(lock(), lock(**{"models/model.json": "1"}))
    assert found == [("train", "models/model.json")]
