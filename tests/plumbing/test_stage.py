"""Around a stage: identity, frozen inputs, exit codes, and where the main repository is."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.plumbing import dvc_files, identity, workspace
from src.plumbing import stage as stage_module
from src.plumbing.command import guarded
from src.plumbing.errors import GateError, InputError
from src.plumbing.stage import Stage
from tests.conftest import run_stage, set_params, working_in

StageOf = Callable[[Path, str], Stage]


def test_every_spelling_that_means_the_same_is_one_value() -> None:
    for spellings in ([1, 1.0, "1", "01", "+1"], [1e-5, "1e-05", "0.00001"], [True, "true"]):
        assert len({repr(identity.canonical(value)) for value in spellings}) == 1
    assert identity.canonical("1e400") != identity.canonical(1)
    assert identity.canonical(["1", 1]) == [1, 1]
    assert identity.canonical("none") == "none"


def test_fingerprint_moves_with_all_that_a_stage_is(copied: Path) -> None:
    def fingerprint() -> str:
        with working_in(copied):
            return Stage("train").fingerprint

    first = fingerprint()
    assert fingerprint() == first

    def changed(change: Callable[[], object]) -> bool:
        backup = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
        change()
        found = fingerprint()
        for path, content in backup.items():
            path.write_bytes(content)
        return found != first

    def append(name: str, text: str) -> Callable[[], object]:
        path = copied / name
        return lambda: path.write_bytes(path.read_bytes() + text.encode())

    assert changed(lambda: set_params(copied, lr=0.002))
    assert not changed(lambda: set_params(copied, lr="1e-3"))
    assert not changed(lambda: set_params(copied, workers=2))
    assert not changed(lambda: set_params(copied, train_per_class=7))
    assert changed(append("src/train.py", "# comment\n"))
    assert not changed(append("src/tracking/store/store.py", "# comment\n"))
    assert not changed(append("src/evaluate.py", "# comment\n"))
    assert changed(append("data/prepared/train.csv", "\n"))
    versions = copied / "requirements/versions.yaml"
    other_torch = versions.read_text().replace("torch:", "torch: 9 #")
    assert changed(lambda: versions.write_text(other_torch))


def test_frozen_inputs(copied: Path, stage_of: StageOf) -> None:
    stage = stage_of(copied, "train")
    edits: list[tuple[Path, Callable[[str], str], str | None]] = [
        (copied / "params.yaml", lambda t: t.replace("lr: 0.001", "lr: 0.002"), "params.yaml: lr"),
        (copied / "params.yaml", lambda t: t.replace("lr: 0.001", "lr: oops"), "params.yaml"),
        (copied / "params.yaml", lambda t: t.replace("workers: 0", "workers: 2"), None),
        (copied / "params.yaml", lambda t: t + "# a comment\n", None),
        (copied / "src/train.py", lambda t: t + "# a comment\n", "src/train.py"),
        (copied / "src/evaluate.py", lambda t: t + "# a comment\n", None),
        (copied / "src/tracking/store/store.py", lambda t: t + "# a comment\n", None),
        (copied / "dvc.yaml", lambda t: t.replace("      - epochs\n", ""), "dvc.yaml"),
        (copied / "data/prepared/val.csv", lambda t: t + "x\n", "data/prepared/val.csv"),
        (
            copied / "requirements/versions.yaml",
            lambda t: t.replace("torch: ", "torch: 9 # "),
            "requirements/versions.yaml:torch",
        ),
        (
            copied / "requirements/versions.yaml",
            lambda t: t + "\t: [",
            "requirements/versions.yaml",
        ),
    ]
    with working_in(copied):
        stage.confirm_inputs()
        for path, edit, named in edits:
            text, times = path.read_text(), path.stat()
            assert edit(text) != text
            path.write_text(edit(text))
            if named is None:
                stage.confirm_inputs()
            else:
                with pytest.raises(GateError) as caught:
                    stage.confirm_inputs()
                assert named in str(caught.value)
                assert "\n" not in str(caught.value)
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        stage.confirm_inputs()


def test_there_is_no_fingerprint_for_inputs_that_were_not_read(
    copied: Path, stage_of: StageOf
) -> None:
    """A checkpoint under it would pass for the work of code that was edited after its import."""
    stage = stage_of(copied, "train")
    code = copied / "src/training/loss.py"
    code.write_text(code.read_text() + "# a comment\n")
    with working_in(copied), pytest.raises(GateError, match=r"src/training/loss\.py changed while"):
        _ = stage.fingerprint


def test_an_input_that_was_deleted_is_the_one_that_is_named(
    copied: Path, stage_of: StageOf
) -> None:
    stage = stage_of(copied, "train")
    (copied / "src/base/randomness.py").unlink()
    with working_in(copied), pytest.raises(GateError) as caught:
        stage.confirm_inputs()
    assert str(caught.value).startswith("train: src/base/randomness.py changed while")


@pytest.mark.parametrize("content", [None, "", "torch: [", "- torch", "torch: {a: 1}"])
def test_versions_that_cannot_be_read_say_so(copied: Path, content: str | None) -> None:
    path = copied / "requirements/versions.yaml"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with working_in(copied), pytest.raises(InputError) as caught:
        Stage("train")
    assert str(caught.value).startswith("requirements/versions.yaml holds no package versions (")
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_dvc_yaml_says_so(copied: Path) -> None:
    path = copied / "dvc.yaml"
    path.write_text(path.read_text().replace("${weights}", "${wieghts}"))
    with (
        working_in(copied),
        pytest.raises(InputError, match=r"uses \$\{wieghts\}, which is no key"),
    ):
        Stage("train")


def test_missing_input_names_the_file(project: Path) -> None:
    with pytest.raises(InputError, match="data/prepared does not exist"):
        run_stage(project, "subset")


def test_a_name_that_is_too_long_for_a_file_is_refused(project: Path) -> None:
    name = "a" * 256
    set_params(project, path=name)
    with pytest.raises(InputError, match=f"^{name} does not exist: "):
        run_stage(project, "prepare")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["x.py", "x.yaml"])
def test_a_named_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert list(stage_module._folder_state(tmp_path)) == [str(tmp_path / name)]


def test_other_versions_are_seen(copied: Path, stage_of: StageOf) -> None:
    assert stage_of(copied, "subset").different_versions == {}
    path = copied / "requirements/versions.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join('numpy: "1.0"' if x.startswith("numpy:") else x for x in lines))
    assert set(stage_of(copied, "subset").different_versions) == {"numpy"}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("wrong"), 2, "wrong\n"),
        (GateError("failed"), 1, "failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 1, "cannot write a/b: No space left\n"),
    ],
)
def test_every_ending_is_a_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert guarded(work) == code
    assert capsys.readouterr().err == line


def test_programming_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: print(1 // 0))


def test_main_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "repo"
    copy = root / ".dvc/tmp/exps/tmpabc123"
    copy.mkdir(parents=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert workspace.main_repository(root) == root
    assert workspace.main_repository(copy) == root
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert workspace.main_repository(copy) == root
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "another project"))
    assert workspace.main_repository(copy) == root
    assert workspace.main_repository(root) == root


def test_a_dvc_root_of_a_project_around_this_one_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer/inner"
    copy = inner / ".dvc/tmp/exps/standalone/tmp1"
    for folder in (outer / ".dvc", inner / ".dvc", copy / ".dvc"):
        folder.mkdir(parents=True)
    for given in (outer, inner):
        monkeypatch.setenv("DVC_ROOT", str(given))
        assert workspace.main_repository(inner) == inner
        assert workspace.main_repository(copy) == inner


def test_a_temporary_folder_of_dvc_that_is_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "repo", tmp_path / "scratch"
    (elsewhere / "exps/tmp1/.dvc").mkdir(parents=True)
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/tmp").symlink_to(elsewhere)
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert workspace.main_repository(root / ".dvc/tmp/exps/tmp1") == root


def test_interpolated_dependencies_follow_the_params(project: Path) -> None:
    values = {"prepare.path": "data/raw", "train_on": "subset", "weights": "w.safetensors"}
    assert "data/raw" in dvc_files.stage_entry("prepare", values, project).deps
    deps = dvc_files.stage_entry("train", values, project).deps
    assert {"data/subset", "w.safetensors"} <= set(deps)
    with pytest.raises(InputError, match=r"dvc\.yaml: no readable stage nosuch"):
        dvc_files.stage_entry("nosuch", values, project)


@pytest.mark.parametrize(
    ("item", "trouble"),
    [
        ("mine.yaml: [x]", "takes params of mine.yaml: only keys of params.yaml and of requirem"),
        ("mine.yaml:", "takes params of mine.yaml"),
        ("params.yaml:", "takes params of params.yaml"),
        ("[lr]", "no readable stage subset"),
    ],
)
def test_params_that_this_project_does_not_read_are_said(
    project: Path, item: str, trouble: str
) -> None:
    path = project / "dvc.yaml"
    text = path.read_text()
    path.write_text(text.replace("      - subset.seed\n", f"      - {item}\n"))
    assert path.read_text() != text
    with pytest.raises(InputError, match=r"^dvc\.yaml: ") as caught:
        dvc_files.stage_entry("subset", {}, project)
    assert trouble in str(caught.value)
    path.write_text(text.replace("      - subset.seed\n", "      - params.yaml: [subset.seed]\n"))
    entry = dvc_files.stage_entry("subset", {}, project)
    assert "subset.seed" in entry.params  # another spelling of the same


def test_what_editors_leave_is_no_part_of_a_folder(tmp_path: Path) -> None:
    """As .dvcignore says to DVC; a fingerprint must not depend on who imported or edits what."""
    folder = tmp_path / "code"
    folder.mkdir()
    code = folder / "a.py"
    code.write_text("a = 1\n")
    before = dvc_files.md5_of(folder)
    names = (
        "__pycache__/a.cpython-311.pyc",
        ".a.py.swp",
        "a.py~",
        ".DS_Store",
        ".ipynb_checkpoints/a-checkpoint.py",
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert dvc_files.md5_of(folder) == before
    assert list(stage_module._folder_state(folder)) == [str(code)]

    def dvc(*arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    dvc("init", "--no-scm", "--quiet")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    left_out = [f"code/{name}" for name in names]
    assert dvc("check-ignore", "code/a.py", *left_out).splitlines() == left_out
    (folder / "b.py").write_text("b = 1\n")
    assert dvc_files.md5_of(folder) != before
