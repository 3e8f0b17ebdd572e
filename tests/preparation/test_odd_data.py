"""Odd data end packed with everything accounted for, or in one line that says what to change."""

import csv
import io
import os
import re
from pathlib import Path

import pytest

from src.plumbing.errors import InputError
from tests.conftest import packed, set_params
from tests.preparation import odd_data
from tests.preparation.image_folders import report

CASES = 200


@pytest.mark.slow(seconds=60)
@pytest.mark.parametrize("first", range(0, CASES, 50))
def test_all_is_packed_or_refused_in_one_clear_line(
    first: int, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, used, before = [], 0, (project / "params.yaml").read_text()
    for seed in range(first, first + 50):
        (project / "params.yaml").write_text(before)
        odd, root = odd_data.draw(seed), tmp_path / f"data {seed}"
        put_there(odd, root, project)
        refused = ""
        try:
            packed(project)
        except InputError as error:
            refused = str(error)
        printed = capsys.readouterr().out
        found = is_wrong(odd, refused) if refused else lost(odd, root, project, printed)
        used += not refused
        if found:
            wrong.append(f"seed {seed}, {odd.traits}, {odd.params}: {found}")
    assert not wrong, "\n".join(wrong)
    assert used > 10


def put_there(odd: odd_data.Odd, root: Path, project: Path) -> None:
    odd_data.write(odd, root)
    set_params(project, source="folder", path=f'"{root}"', **odd.params)
    if odd.rows:
        text = io.StringIO()
        csv.writer(text).writerows(odd.rows)
        (root / "labels.csv").write_text(text.getvalue())
        set_params(project, source="csv")


def is_wrong(odd: odd_data.Odd, refused: str) -> str:
    """What is wrong with a line that refuses the data, if anything."""
    is_plain = len(refused.splitlines()) == 1 and len(refused) < 1000
    if is_plain and any(re.search(pattern, refused) for pattern in odd.refusals):
        return ""
    return f"expected {odd.refusals}, got {refused}"


def lost(odd: odd_data.Odd, root: Path, project: Path, printed: str) -> str:
    """What is wrong with packed data, if anything: each file, or path of a table, must be packed,
    rejected, a leak, or counted by its ending; and a line tells what was left out."""
    found = report(project)
    left_out = found["rejects"]["count"] + found["leaks"]["count"]
    if odd.rows:
        total = len({path for path, *_ in odd.rows[1:]})
    else:
        total = sum(len(files) for _, _, files in os.walk(root))
        left_out += sum(found["files_left_out_by_ending"].values())
    if odd.must_refuse:
        return f"packed, not refused with {odd.refusals}"
    if found["used"] + left_out != total:
        return f"{found['used']} used, {left_out} left out of {total}"
    if left_out and "left out" not in printed:
        return f"nothing said of {left_out} left out: {printed}"
    return ""
