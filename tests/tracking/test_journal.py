import io
import json
import math
import resource
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.tracking.journal.journal import (
    Journal,
    Record,
    add_points,
    hold,
    load_record,
    record_elsewhere,
    record_path,
)

HOLD = """
import sys
from pathlib import Path
from src.tracking.journal.journal import hold
with hold(Path(sys.argv[1]), "f" * 64):
    print("held", flush=True)
    sys.stdin.read()
"""


def values(path: Path) -> list[tuple[str, float, int]]:
    points = [json.loads(line) for line in path.read_text().splitlines()]
    return [(point["key"], point["value"], point["step"]) for point in points]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".cache" / "journal" / "run.jsonl"


def test_an_identical_point_is_kept_once_also_by_the_next_process(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        journal = Journal(path)
        for _ in range(2):
            journal.append({"train/loss": 0.1, "val/loss": math.nan}, step=1)
        journal.append({"train/loss": 0.1}, step=2)
        journal.close()
    points = values(path)
    assert [(key, step) for key, _, step in points] == [
        ("train/loss", 1),
        ("val/loss", 1),
        ("train/loss", 2),
    ]
    assert points[0][1] == 0.1
    assert math.isnan(points[1][1])
    assert capsys.readouterr().err == ""


def test_a_differing_value_is_kept_with_one_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(path).append({"loss": 0.5, "other": 1}, step=3)
    journal = Journal(path)
    journal.append({"loss": 0.25, "other": 1}, step=3)
    assert values(path) == [("loss", 0.5, 3), ("other", 1.0, 3), ("loss", 0.25, 3)]
    assert capsys.readouterr().err == "tracking: loss at step 3 was 0.5, now 0.25\n"
    journal.append({"loss": 0.5}, step=3)  # both are known by now
    assert len(values(path)) == 3
    assert capsys.readouterr().err == ""


def test_a_torn_last_line_is_cut(path: Path) -> None:
    Journal(path).append({"loss": 0.5}, step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-5])
    journal = Journal(path)
    assert path.read_bytes() == whole
    journal.append({"loss": 0.4}, step=2)
    assert values(path) == [("loss", 0.5, 1), ("loss", 0.4, 2)]


def test_a_spoilt_line_in_the_middle_hides_no_other(path: Path) -> None:
    journal = Journal(path)
    journal.append({"loss": 0.5}, step=1)
    path.write_bytes(path.read_bytes() + b"\0\0\0\n[1]\n")
    journal.append({"loss": 0.4}, step=2)
    points, position = Journal(path).read(0)
    assert [(point.value, point.step) for point in points] == [(0.5, 1), (0.4, 2)]
    assert position == path.stat().st_size


def test_reading_goes_on_where_it_ended(path: Path) -> None:
    journal = Journal(path)
    for step in range(5):
        journal.append({"loss": step}, step)
    seen, position = [], 0
    while True:
        points, end = journal.read(position, limit=2)
        assert len(points) <= 2
        if end == position:
            break
        seen += [point.step for point in points]
        position = end
    assert seen == [0, 1, 2, 3, 4]
    with open(path, "ab") as file:
        file.write(b'{"key": "loss", "value": 5.0, "step"')  # a line that is being written
    assert journal.read(position) == ([], position)
    path.unlink()
    assert journal.read(position) == ([], position)


def test_a_record_comes_back_and_a_spoilt_one_counts_as_none(tmp_path: Path) -> None:
    path = record_path(tmp_path, "f" * 64)
    record = Record(path, "id", "1", "train first", "train", "killed", 120, "a")
    record.save()
    assert load_record(tmp_path, "f" * 64, "a") == record
    assert json.loads(path.read_text()) == {
        "run_id": "id",
        "experiment_id": "1",
        "name": "train first",
        "stage": "train",
        "state": "killed",
        "position": 120,
        "store": "a",
        "project": "",
    }
    for spoilt in ("", "[]", "{}", '{"unknown": 1}'):
        path.write_text(spoilt)
        assert load_record(tmp_path, "f" * 64, "a") is None


@pytest.mark.parametrize("ending", ["ends", "is killed"])
def test_a_second_holder_waits_and_names_the_first(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, pipe = [sys.executable, "-c", HOLD, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as first:
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        with hold(tmp_path, "e" * 64):  # another fingerprint is free
            assert capsys.readouterr().err == ""
        release = first.kill if ending == "is killed" else first.stdin.close

        class Stderr(io.StringIO):
            def write(self, text: str) -> int:
                release()  # when it is said that one waits
                return super().write(text)

        with redirect_stderr(Stderr()) as said, hold(tmp_path, "f" * 64):
            assert first.wait(timeout=120) == (-9 if ending == "is killed" else 0)
    line = f"process {first.pid} works on the same inputs; waiting until it ends\n"
    assert said.getvalue() == line
    with hold(tmp_path, "f" * 64):
        assert capsys.readouterr().err == ""


def test_a_record_of_another_store_is_kept_beside_it(tmp_path: Path) -> None:
    path = record_path(tmp_path, "f" * 64)
    first = Record(path, "first", "1", "train first", "train", "killed", 120, "a")
    second = Record(path, "second", "7", "train first", "train", "running", 0, "b")
    first.save()
    assert load_record(tmp_path, "f" * 64, "b") is None
    assert record_elsewhere(tmp_path, "f" * 64, "b") == first
    second.save()
    assert load_record(tmp_path, "f" * 64, "b") == second
    assert load_record(tmp_path, "f" * 64, "a") == first
    first.state = "finished"
    first.save()  # the address was changed back
    assert load_record(tmp_path, "f" * 64, "a") == first
    assert load_record(tmp_path, "f" * 64, "b") == second
    assert record_elsewhere(tmp_path, "f" * 64, "a") is None


def test_a_record_without_a_store_is_of_the_present_one(tmp_path: Path) -> None:
    path = record_path(tmp_path, "f" * 64)
    fields = {"run_id": "id", "experiment_id": "1", "name": "train first", "stage": "train"}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(fields | {"state": "finished", "position": 9}))
    record = load_record(tmp_path, "f" * 64, "a")
    assert record == Record(path, "id", "1", "train first", "train", "finished", 9, "a")
    assert record_elsewhere(tmp_path, "f" * 64, "a") is None
    record.save()
    assert load_record(tmp_path, "f" * 64, "b") is None


def test_points_of_another_journal_are_added_once(tmp_path: Path) -> None:
    folder = tmp_path / ".cache/journal"
    folder.mkdir(parents=True)
    (folder / "old.jsonl").write_bytes(b"1\n2\n3\ntorn")
    (folder / "new.jsonl").write_bytes(b"2\ntorn")
    add_points(tmp_path, "none", "new")
    for _ in range(2):
        add_points(tmp_path, "old", "new")
        assert (folder / "new.jsonl").read_bytes() == b"2\n1\n3\n"
    assert (folder / "old.jsonl").read_bytes() == b"1\n2\n3\ntorn"


def test_a_disk_that_takes_a_part_of_a_point_takes_none_of_it(path: Path) -> None:
    journal = Journal(path)
    journal.append({"loss": 1.0}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append({"loss": 2.0}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert values(path) == [("loss", 1.0, 1)]
    for step in (3, 2):  # there is space again
        journal.append({"loss": float(step)}, step)
    journal.close()
    assert values(path) == [("loss", 1.0, 1), ("loss", 3.0, 3), ("loss", 2.0, 2)]
