"""Whose checkpoint counts, and which is damaged."""

from pathlib import Path

import pytest
import torch

from tests.training.trainings import Killed, Splits, checkpoint_in, make_training, run, same_state


def test_a_checkpoint_of_another_machine_counts_only_when_asked(
    splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(splits)
    with pytest.raises(Killed):
        run(training, tmp_path, 2)
    state = training.state_dict()
    checkpoint_in(tmp_path).save(state)
    assert same_state(checkpoint_in(tmp_path).load(), state)
    assert capsys.readouterr().out == ""
    assert checkpoint_in(tmp_path, kind="b").load() is None
    assert "another machine (kind a); to go on from it set machine.resume=any" in (
        capsys.readouterr().out
    )
    assert same_state(checkpoint_in(tmp_path, kind="b", anywhere=True).load(), state)
    assert "another machine (kind a): the bits will differ" in capsys.readouterr().out
    both = checkpoint_in(tmp_path, kind="b", anywhere=True)
    both.load()
    assert both.kinds == ["a", "b"]  # logged with the result, which is of neither alone
    # One that starts over leaves the other's where it is, and then goes before it.
    other = make_training(splits)
    checkpoint_in(tmp_path, kind="b").save(other.state_dict())
    assert same_state(checkpoint_in(tmp_path).load(), state)
    assert not same_state(checkpoint_in(tmp_path, kind="b", anywhere=True).load(), state)
    checkpoint_in(tmp_path).remove()
    assert checkpoint_in(tmp_path, kind="b", anywhere=True).load() is None


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "keys"])
def test_a_damaged_checkpoint_is_said_and_not_used(
    splits: Splits, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = checkpoint_in(tmp_path)
    checkpoint.save(make_training(splits).state_dict())
    content = checkpoint.path.read_bytes()
    if damage == "keys":
        torch.save({"kind": checkpoint.kind}, checkpoint.path)
    else:
        spoilt = {"cut": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint"}
        checkpoint.path.write_bytes(spoilt[damage])
    assert checkpoint.load() is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("train: starts over, the checkpoint cannot be read")
