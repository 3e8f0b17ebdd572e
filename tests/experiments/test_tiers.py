"""The tiers of `verify`: outputs, histories, metrics, and other seeds."""

import json
import math

import pytest
import yaml

from src.experiments.verify import tiers

HISTORY = "epoch,train_loss,val_accuracy\n1,{0},0.5\n2,0.3,0.6\n"


def metrics(val: float, test: float, n: int = 400) -> str:
    return json.dumps({"val": {"n": n, "accuracy": val}, "test": {"n": n, "accuracy": test}})


def test_histories_part_where_the_first_number_differs() -> None:
    one = HISTORY.format("0.5")
    assert tiers.first_difference(one, one) == ""
    other = one.replace("0.3,0.6", "0.3,0.7")
    assert tiers.first_difference(one, other) == (
        "the histories part in epoch 2: val_accuracy 0.6 and 0.7"
    )
    assert "2 epochs, the other 1" in tiers.first_difference(one, "".join(one.splitlines(True)[:2]))


@pytest.mark.parametrize(
    ("loss", "val", "test", "trouble"),
    [
        ("0.5004", 0.91, 0.89, []),
        ("0.55", 0.9, 0.9, ["the loss of the first epoch is 0.55 instead of 0.5"]),
        ("0.5", 0.9, 0.85, ["test accuracy is 0.85 instead of 0.9"]),
    ],
)
def test_close_numbers_are_enough_on_another_machine(
    loss: str, val: float, test: float, trouble: list[str]
) -> None:
    history = HISTORY.format("0.5"), HISTORY.format(loss)
    found = tiers.numeric_trouble(history, (metrics(0.9, 0.9), metrics(val, test)))
    assert len(found) == len(trouble)
    assert all(line.startswith(words) for line, words in zip(found, trouble, strict=True))


GROUP = {
    **{"n": 400, "accuracy": 0.9},
    **{"macro_f1": 0.89, "macro_f1_low": 0.86, "macro_f1_high": 0.92},
    **{"log_loss": 0.3, "log_loss_low": 0.22, "log_loss_high": 0.38},
}


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({"macro_f1": 0.86, "log_loss": 0.4}, []),
        ({"macro_f1": 0.01}, ["val macro_f1 is 0.01 instead of 0.89 ± 0.043"]),
        ({"log_loss": 50.0}, ["val log_loss is 50 instead of 0.3 ± 0.12"]),
        ({"log_loss": math.nan}, ["val log_loss is nan instead of 0.3 ± 0.12"]),
    ],
)
def test_every_metric_with_an_interval_is_bounded(
    changed: dict[str, float], trouble: list[str]
) -> None:
    texts = json.dumps({"val": GROUP}), json.dumps({"val": {**GROUP, **changed}})
    assert tiers.numeric_trouble((HISTORY.format(0.5),) * 2, texts) == trouble


def test_a_flawless_net_may_miss_an_image() -> None:
    """Its intervals have no width."""
    flawless = {key: 1.0 for key in GROUP if not key.startswith("log")} | {"n": 400}
    loss = dict.fromkeys(("log_loss", "log_loss_low", "log_loss_high"), 0.0)
    missed = {"accuracy": 1 - 1 / 400, "macro_f1": 1 - 1 / 400, "log_loss": 2 / 400}
    before = {**flawless, **loss}
    for after, found in ((missed, []), ({**missed, "log_loss": 4 / 400}, ["val log_loss"])):
        texts = json.dumps({"val": before}), json.dumps({"val": {**before, **after}})
        trouble = tiers.numeric_trouble((HISTORY.format(0.5),) * 2, texts)
        assert [line.partition(" is ")[0] for line in trouble] == found


def test_other_seeds_decide_last() -> None:
    seeds = [0.90, 0.91, 0.92, 0.91]
    inside = tiers.statistical_trouble((metrics(0.9, 0.9), metrics(0.93, 0.9)), seeds)
    outside = tiers.statistical_trouble((metrics(0.9, 0.9), metrics(0.99, 0.9)), seeds)
    assert inside == ""
    assert "val accuracy 0.99 is outside" in outside
    # Three seeds that are all alike do not mean that one image is too many.
    alike = [0.9] * 3
    assert tiers.statistical_trouble((metrics(0.9, 0.9), metrics(0.9 + 1 / 360, 0.9)), alike) == ""


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
