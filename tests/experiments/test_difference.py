"""What `verify` compares: locks, histories, metrics, and other seeds."""

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml

from src.experiments.verify import difference
from src.plumbing import dvc_files, identity, params
from src.plumbing.errors import InputError
from src.plumbing.stage import Stage
from tests.conftest import working_in

HISTORY = "epoch,train_loss,val_accuracy\n1,{0},0.5\n2,0.3,0.6\n"


def metrics(val: float, test: float, n: int = 400) -> str:
    return json.dumps({"val": {"n": n, "accuracy": val}, "test": {"n": n, "accuracy": test}})


def test_histories_part_where_the_first_number_differs() -> None:
    one = HISTORY.format("0.5")
    assert difference.parting(one, one) == ""
    other = one.replace("0.3,0.6", "0.3,0.7")
    assert difference.parting(one, other) == (
        "the histories part in epoch 2: val_accuracy 0.6 and 0.7"
    )
    assert "2 epochs, the other 1" in difference.parting(one, "".join(one.splitlines(True)[:2]))


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
    found = difference.numeric_trouble(history, (metrics(0.9, 0.9), metrics(val, test)))
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
    assert difference.numeric_trouble((HISTORY.format(0.5),) * 2, texts) == trouble


def test_a_flawless_net_may_miss_a_picture() -> None:
    """Its intervals have no width."""
    flawless = {key: 1.0 for key in GROUP if not key.startswith("log")} | {"n": 400}
    loss = dict.fromkeys(("log_loss", "log_loss_low", "log_loss_high"), 0.0)
    missed = {"accuracy": 1 - 1 / 400, "macro_f1": 1 - 1 / 400, "log_loss": 2 / 400}
    before = {**flawless, **loss}
    for after, found in ((missed, []), ({**missed, "log_loss": 4 / 400}, ["val log_loss"])):
        texts = json.dumps({"val": before}), json.dumps({"val": {**before, **after}})
        trouble = difference.numeric_trouble((HISTORY.format(0.5),) * 2, texts)
        assert [line.partition(" is ")[0] for line in trouble] == found


def test_the_noise_of_seeds_decides_last() -> None:
    seeds = [0.90, 0.91, 0.92, 0.91]
    inside = difference.statistical_trouble((metrics(0.9, 0.9), metrics(0.93, 0.9)), seeds)
    outside = difference.statistical_trouble((metrics(0.9, 0.9), metrics(0.99, 0.9)), seeds)
    assert inside == ""
    assert "val accuracy 0.99 is outside" in outside
    # Three seeds that are all alike do not mean that one picture is too many.
    alike = [0.9] * 3
    assert (
        difference.statistical_trouble((metrics(0.9, 0.9), metrics(0.9 + 1 / 360, 0.9)), alike)
        == ""
    )


@pytest.fixture
def locked(copied: Path) -> tuple[Path, str]:
    """A project whose stages have run, and its dvc.lock."""
    stages = {}
    with working_in(copied):
        for name in dvc_files.STAGES:
            stage = Stage(name)
            values = {key: stage.params._values[key] for key in stage.entry.params}
            versions = {key: stage.versions[key] for key in stage.entry.versions}
            stages[name] = {
                "cmd": stage.entry.cmd,
                "deps": [{"path": p, "md5": m} for p, m in stage.deps_md5.items()],
                "params": {"params.yaml": values, "requirements/versions.yaml": versions},
                "outs": [{"path": out, "md5": "0" * 32} for out in stage.entry.outs],
            }
    return copied, yaml.safe_dump({"schema": "2.0", "stages": stages})


def test_sources_that_are_not_those_of_the_lock_are_named(locked: tuple[Path, str]) -> None:
    folder, lock = locked
    assert difference.stale_inputs(lock, folder) == []
    (folder / "data/prepared/meta.json").write_text("{}")  # made by a stage: no source
    assert difference.stale_inputs(lock, folder) == []
    path = folder / "src/train.py"
    path.write_text(path.read_text() + "# a comment\n")
    assert difference.stale_inputs(lock, folder) == ["train: src/train.py has changed"]


def test_a_commit_with_other_keys_is_compared_too(locked: tuple[Path, str]) -> None:
    """Params by their text: what this code's schema says of them does not matter."""
    folder, lock = locked
    path = folder / "params.yaml"
    path.write_text(path.read_text() + "a_key_of_other_code: 1\n")
    assert difference.stale_inputs(lock, folder) == []
    text = path.read_text()
    path.write_text(text.replace("\nlr: 0.001 ", "\nlr: 1e-3 "))  # the same number
    assert path.read_text() != text
    assert difference.stale_inputs(lock, folder) == []
    path.write_text(text.replace("\nlr: 0.001 ", "\nlr: 0.002 "))
    assert "train: lr is 0.002, was 0.001" in difference.stale_inputs(lock, folder)
    path.write_text(text.replace("\nlr: 0.001 ", "\nrate: 0.001 "))
    assert "train: lr is missing" in difference.stale_inputs(lock, folder)


def test_outputs_are_named_with_their_stage(locked: tuple[Path, str]) -> None:
    _, lock = locked
    assert difference.of_outputs(lock, lock) == []
    other = lock.replace(
        "- md5: '00000000000000000000000000000000'\n      path: models/model.json",
        "- md5: '1'\n      path: models/model.json",
    )
    assert other != lock
    assert difference.of_outputs(lock, other) == [("train", "models/model.json")]


def test_a_project_cut_down_to_fewer_stages_is_compared_too(locked: tuple[Path, str]) -> None:
    folder, lock = locked
    for name in ("dvc.yaml", "dvc.lock"):
        text = lock if name == "dvc.lock" else (folder / name).read_text()
        content = yaml.safe_load(text)
        del content["stages"]["subset"]
        (folder / name).write_text(yaml.safe_dump(content))
    fewer = (folder / "dvc.lock").read_text()
    assert difference.stale_inputs(fewer, folder) == []
    assert difference.stale_inputs(lock, folder) == []  # DVC may keep an entry that is gone
    (folder / "dvc.yaml").write_text("stages: [")
    with pytest.raises(InputError, match=r"dvc\.yaml: no readable stages"):
        difference.stale_inputs(fewer, folder)


@pytest.fixture
def checkout(locked: tuple[Path, str]) -> tuple[Path, str]:
    """As a clone has it before a stage runs: outputs in git, one of them a folder, without those
    in the cache; and its dvc.lock."""
    folder, text = locked
    (folder / "results/evaluate/tables").mkdir()
    (folder / "results/evaluate/tables/a.csv").write_text("a\n")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())
    tables = {"results/evaluate/tables": {"cache": False}}
    stages["stages"]["evaluate"]["outs"].append(tables)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages))
    lock = yaml.safe_load(text)
    lock["stages"]["evaluate"]["outs"].append({"path": next(iter(tables))})
    with working_in(folder):
        for name, entry in lock["stages"].items():
            uncached = dvc_files.stage_entry(name, params.load()).uncached
            for out in entry["outs"]:
                path = Path(out["path"])
                out["md5"] = dvc_files.md5_of(path)
                if out["path"] not in uncached:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder, yaml.safe_dump(lock)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (identity.METRICS, "evaluate"),
        ("results/evaluate/per_class.csv", "evaluate"),
        ("results/evaluate/tables/a.csv", "evaluate"),
        ("results/train/history.csv", "train"),
        ("results/overfit_check/verdict.json", "overfit-check"),
    ],
)
def test_outputs_in_git_are_those_of_the_lock(
    checkout: tuple[Path, str], path: str, stage: str
) -> None:
    folder, lock = checkout
    assert difference.edited_outputs(lock, folder) == []
    named = path.removesuffix("/a.csv")
    (folder / path).write_text("edited\n")
    assert difference.edited_outputs(lock, folder) == [f"{named} is not what {stage} wrote"]
    shutil.rmtree(folder / named) if named != path else (folder / path).unlink()
    assert difference.edited_outputs(lock, folder) == [f"{named} is not in git"]
