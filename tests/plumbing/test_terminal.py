"""What stands beside the bar and in its place."""

import sys

import pytest

from src.plumbing.terminal import Checks, Progress

ROW = {
    "epoch": 1,
    "train_loss": 0.5,
    "train_accuracy": 0.75,
    "val_loss": 0.25,
    "val_accuracy": 0.875,
}


def test_the_bar_shows_loss_and_accuracy_also_after_short_epochs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop looks at its loss every 50 steps; an epoch may have fewer."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, 3, 4, "images", done=0, mode="auto") as progress:
        for _ in range(3):
            progress.advance()
        progress.epoch_done(ROW)
        assert progress.bar is not None
        assert progress.bar.n == 3
        assert progress.bar.postfix == "loss 0.5000 accuracy 0.7500"
        progress.show(2, 0.125, 1.0)
        assert progress.bar.postfix == "loss 0.1250 accuracy 1.0000"
        assert "epoch 1/2  train loss 0.5000 acc 0.7500  val loss 0.2500" in capsys.readouterr().err
        progress.say("stopped")
        said = capsys.readouterr()
        assert said.out == "stopped\n"
        assert said.err.startswith("\r ")  # the bar is taken away before


@pytest.mark.parametrize(("mode", "lines"), [("auto", 1), ("off", 0)])
def test_in_a_log_file_an_epoch_is_a_line(
    mode: str, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(2, 3, 4, "images", done=0, mode=mode) as progress:
        for _ in range(3):
            progress.advance()
            progress.show(1, 0.125, 1.0)
        progress.epoch_done(ROW)
        progress.say("stopped")
    said = capsys.readouterr()
    assert said.err.count("\n") == said.err.count(" images/s ") == lines
    assert "\r" not in said.err
    assert said.out == "stopped\n"


def test_checks_are_counted_when_they_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Checks(total=3, mode="auto") as progress:
        progress.begin("layers")
        assert progress.bar is not None
        assert (progress.bar.n, progress.bar.postfix) == (0, "layers")
        progress.begin("labels")
        assert (progress.bar.n, progress.bar.postfix) == (1, "labels")
    assert "overfit-check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "seconds", "lines"),
    [
        ("auto", 0.0, ["0 of 3 checks done, now layers", "1 of 3 checks done, now labels"]),
        ("auto", 3600.0, []),
        ("off", 0.0, []),
    ],
)
def test_in_a_log_file_a_check_is_a_line_now_and_then(
    mode: str,
    seconds: float,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Checks, "SECONDS", seconds)
    with Checks(total=3, mode=mode) as progress:
        progress.begin("layers")
        progress.begin("labels")
    said = capsys.readouterr().err.splitlines()
    assert said == [f"overfit-check: {line}" for line in lines]
