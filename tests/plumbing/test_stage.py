"""Around a stage: identity, frozen inputs, exit codes, and where the main repository is."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.plumbing import dvc_files, hashes, identity, workspace
from src.plumbing import stage as stage_module
from src.plumbing.command import guarded
from src.plumbing.errors import GateError, InputError
from src.plumbing.stage import Stage
from tests.conftest import python, run_stage, set_params, working_in


def test_every_spelling_that_means_the_same_is_one_value() -> None:
    for spellings in ([1, 1.0, "1", "01", "+1"], [1e-5, "1e-05", "0.00001"], [True, "true"]):
        assert len({repr(identity.canonical(value)) for value in spellings}) == 1
    assert identity.canonical("1e400") != identity.canonical(1)
    assert identity.canonical(["1", 1]) == [1, 1]
    assert identity.canonical("none") == "none"


VERSIONS = "requirements/versions.yaml"
# File, old text, new text (no old text: append the new one), and what is named as changed.
EDITS: list[tuple[str, str, str, str | None]] = [
    ("params.yaml", "lr: 0.001", "lr: 0.002", "params.yaml: lr"),
    ("params.yaml", "lr: 0.001", "lr: 1e-3", None),
    ("params.yaml", "workers: 0", "workers: 2", None),
    ("params.yaml", "train_per_class: ", "train_per_class: 7 #", None),
    ("params.yaml", "", "# a comment\n", None),
    ("src/train.py", "", "# a comment\n", "src/train.py"),
    ("src/evaluate.py", "", "# a comment\n", None),
    ("src/tracking/store/store.py", "", "# a comment\n", None),
    ("dvc.yaml", "      - epochs\n", "", "dvc.yaml"),
    ("data/prepared/val.csv", "", "x\n", "data/prepared/val.csv"),
    (VERSIONS, "torch: ", "torch: 9 # ", f"{VERSIONS}:torch"),
]
BROKEN = [
    ("params.yaml", "lr: 0.001", "lr: oops", "params.yaml"),
    (VERSIONS, "", "\t: [", VERSIONS),
]


def test_what_a_stage_is_gives_its_fingerprint_and_stays_while_it_runs(copied: Path) -> None:
    with working_in(copied):
        stage = Stage("train")
        assert stage.fingerprint == Stage("train").fingerprint
        for name, old, new, named in EDITS + BROKEN:
            path = Path(name)
            text, times = path.read_text(), path.stat()
            edited = text.replace(old, new) if old else text + new
            assert edited != text
            path.write_text(edited)
            if named is None:
                stage.confirm_inputs()
            else:
                with pytest.raises(GateError) as caught:
                    stage.confirm_inputs()
                assert named in str(caught.value)
                assert "\n" not in str(caught.value)
            if (name, old, new, named) in EDITS:
                assert (Stage("train").fingerprint == stage.fingerprint) == (named is None), new
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        stage.confirm_inputs()


def test_there_is_no_fingerprint_for_inputs_that_were_not_read(copied: Path) -> None:
    """A checkpoint under it would pass for the work of code that was edited after its import."""
    code = Path("src/training/loss.py")
    with working_in(copied):
        stage = Stage("train")
        code.write_text(code.read_text() + "# a comment\n")
        with pytest.raises(GateError, match=r"src/training/loss\.py changed while"):
            _ = stage.fingerprint


def test_an_input_that_was_deleted_is_the_one_that_is_named(copied: Path) -> None:
    with working_in(copied):
        stage = Stage("train")
        Path("src/base/randomness.py").unlink()
        with pytest.raises(GateError, match=r"^train: src/base/randomness\.py changed while"):
            stage.confirm_inputs()


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
    said = r"uses \$\{wieghts\}, which is no key"
    with working_in(copied), pytest.raises(InputError, match=said):
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


def test_other_versions_are_seen(copied: Path) -> None:
    with working_in(copied):
        assert Stage("subset").different_versions == {}
        text = Path(VERSIONS).read_text()
        Path(VERSIONS).write_text(text.replace("\nnumpy: ", "\nnumpy: 1.0 #"))
        assert set(Stage("subset").different_versions) == {"numpy"}


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
    for given in ("", root, tmp_path / "another project"):
        monkeypatch.setenv("DVC_ROOT", str(given))
        assert workspace.main_repository(root) == root
        assert workspace.main_repository(copy) == root


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
    before = hashes.md5_of(folder)
    names = ["__pycache__/a.cpython-311.pyc", ".a.py.swp", "a.py~", ".DS_Store"]
    names += [".ipynb_checkpoints/a-checkpoint.py"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert hashes.md5_of(folder) == before
    assert list(stage_module._folder_state(folder)) == [str(code)]

    python(tmp_path, "-m", "dvc", "init", "--no-scm", "--quiet")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    left_out = [f"code/{name}" for name in names]
    ended = python(tmp_path, "-m", "dvc", "check-ignore", "code/a.py", *left_out)
    assert ended.stdout.splitlines() == left_out
    (folder / "b.py").write_text("b = 1\n")
    assert hashes.md5_of(folder) != before
