"""`evaluate` writes into the run that trained the model."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from src.plumbing import hashes, identity
from src.plumbing.stage import Stage
from src.tracking import run as tracking
from src.tracking.store import store
from tests.tracking.tracked_project import (
    MODEL,
    edit,
    evaluate,
    history,
    runs,
    train,
    train_record,
    train_until,
)


def test_evaluate_writes_into_the_run_of_train(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    ended = runs(project)[0].info.end_time
    for name in ("lusty-bird", "merry-cat", "lusty-bird"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        evaluate()
    monkeypatch.delenv("DVC_EXP_NAME")
    stage = Stage("evaluate")
    with (
        pytest.raises(ValueError, match="no such image"),
        tracking.reopen(stage, Stage("train").fingerprint, stage.deps_md5[MODEL]),
    ):
        raise ValueError("no such image")
    [stored] = runs(project)
    assert stored.data.tags["stage"] == "train"
    assert stored.data.tags["dvc.exp_names"] == "lusty-bird,merry-cat"
    assert history(project, stored, "test/accuracy") == [(0, 0.75)]
    assert (stored.info.status, stored.info.end_time) == ("FINISHED", ended)
    record = train_record(project)
    assert (record.state, record.stage) == ("finished", "train")


def test_a_model_that_dvc_lock_did_not_make_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = identity.locked_stage(Path("dvc.lock").read_text(), "train")
    assert entry
    model = project / identity.MODEL
    for fingerprint, said in ((identity.fingerprint_of(entry), False), ("0" * 64, True)):
        model.write_text(json.dumps({"fingerprint": fingerprint}))
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        out = {"path": identity.MODEL, "md5": hashes.md5_of(model)}
        lock["stages"]["train"]["outs"] = [out]
        Path("dvc.lock").write_text(yaml.safe_dump(lock))
        evaluate(of=fingerprint)
        line = (
            "tracking: models/model.json was not made from the inputs in dvc.lock, but from others"
        )
        assert (line in capsys.readouterr().err) == said


def test_evaluate_does_not_end_the_run_of_a_killed_training(project: Path) -> None:
    train_until(KeyboardInterrupt)
    evaluate()
    [stored] = runs(project)
    assert stored.info.status == "KILLED"
    train()  # still goes on in the same run
    assert [run.info.run_id for run in runs(project)] == [stored.info.run_id]


def test_without_a_record_the_newest_run_of_the_same_model_is_found(project: Path) -> None:
    for _ in range(3):
        train()
    other, newest, _ = runs(project)
    client, _ = store.open_store(project)
    client.set_tag(other.info.run_id, "model.md5", "0" * 32)  # trained on another kind of machine
    shutil.rmtree(project / ".cache")
    evaluate()
    stored = {run.info.run_id: run for run in runs(project)}
    assert len(stored) == 3
    having = [run_id for run_id, run in stored.items() if "test/accuracy" in run.data.metrics]
    assert having == [newest.info.run_id]


def test_without_any_run_one_is_restored_and_used_again(project: Path) -> None:
    stage = Stage("train")
    for accuracy in (0.75, 0.875):
        shutil.rmtree(project / ".cache", ignore_errors=True)
        evaluate(accuracy)
    [stored] = runs(project)
    assert stored.info.run_name == "train restored baseline"
    assert stored.info.status == "FINISHED"
    assert stored.data.params["lr"] == "0.001"
    expected = {"stage": "train", "fingerprint": stage.fingerprint, "restored": "true"}
    assert expected.items() <= stored.data.tags.items()
    assert history(project, stored, "test/accuracy") == [(0, 0.75), (0, 0.875)]
    train()
    new, _ = runs(project)
    assert new.data.tags["repeat_of"] == stored.info.run_id


@pytest.mark.parametrize(("first", "second"), [(32, 64), (64, 32)])  # that of HEAD is 32
def test_other_evaluation_settings_open_a_child_run(first: int, second: int, project: Path) -> None:
    train()
    edit("params.yaml", "batch_size: 32", f"batch_size: {first}")
    evaluate()
    edit("params.yaml", f"batch_size: {first}", f"batch_size: {second}")
    for _ in range(2):
        evaluate(0.5)
    child, parent = runs(project)
    assert child.info.run_name == f"evaluate batch_size={second}"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"batch_size": str(second)}
    assert child.info.status == "FINISHED"
    assert history(project, child, "test/accuracy") == [(0, 0.5)]
    assert history(project, parent, "test/accuracy") == [(0, 0.75)]
