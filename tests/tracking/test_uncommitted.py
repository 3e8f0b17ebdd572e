"""The difference to HEAD that goes with a run."""

import shutil
from pathlib import Path

import pytest

from src.base.imports import ROOT
from src.plumbing.stage import Stage
from src.tracking.about import provenance, uncommitted
from tests.tracking.tracked_project import (
    artifacts,
    commit,
    edit,
    git,
    inputs,
    make_project,
    runs,
    train,
    write_versions,
)


def applied(folder: Path) -> Path:
    """A clone of HEAD with the difference applied; git's index and objects here stay untouched."""
    before = state_of_git()
    patch = folder / "patch"
    patch.write_bytes(uncommitted.difference())
    assert state_of_git() == before
    git("clone", "--quiet", ".", str(folder / "clone"))
    git("-C", str(folder / "clone"), "apply", "--whitespace=nowarn", str(patch))
    return folder / "clone"


def state_of_git() -> dict[str, bytes]:
    paths = [Path(".git/index"), *Path(".git/objects").rglob("*")]
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


def test_a_clone_with_the_patch_has_the_very_files(project: Path, tmp_path: Path) -> None:
    Path("src/crlf.py").write_bytes(b"one = 1\r\ntwo = 2\r\n")
    Path("src/old.py").write_text("".join(f"line_{n} = {n}\n" for n in range(20)))
    Path("src/gone.py").write_text("gone = 1\n")
    Path("src/folder.py").write_text("folder = 1\n")
    Path("src/linked.py").write_text("linked = 1\n")
    Path("data/raw.dvc").write_text("outs: []\n")
    commit()
    # What a user may have set must not change the patch.
    settings = "noprefix=true mnemonicPrefix=true renames=copies context=0 external=false"
    for key, _, value in (setting.partition("=") for setting in settings.split()):
        git("config", f"diff.{key}", value)
    git("config", "color.ui", "always")
    Path("src/crlf.py").write_bytes(b"one = 1\r\ntwo = 3\r\n")
    git("mv", "src/old.py", "src/new.py")
    Path("src/gone.py").unlink()
    Path("src/folder.py").unlink()
    Path("src/folder.py").mkdir()
    Path("src/folder.py/inside.py").write_text("inside = 1\n")
    Path("src/linked.py").unlink()
    Path("src/linked.py").symlink_to("new.py")
    Path("src/package").mkdir()
    Path("src/package/__init__.py").touch()
    Path("src/feed.py").write_text("a = 1\n\fb = '\v \u2028'\n", encoding="utf-8")
    Path("src/latin.py").write_bytes(b"# caf\xe9, no end of line")
    Path("src/bytes.bin").write_bytes(bytes(range(256)))
    Path("src/sp ace \u00e9.py").write_text("space = 1\n")
    Path("src/run.sh").write_text("exit\n")
    Path("src/run.sh").chmod(0o755)
    Path("src/staged.py").write_text("staged = 1\n")
    git("add", "src/staged.py")
    Path("src/staged.py").write_text("staged = 2\n")
    edit("params.yaml", "lr: 0.001", "lr: 0.002")
    Path("notes.txt").write_text("mine\n")
    Path("data/raw.dvc").write_text("outs: [a]\n")
    Path("data/more.dvc").write_text("outs: [b]\n")
    write_versions(numpy="0.0.1")
    clone = applied(tmp_path)
    assert inputs(clone) == inputs(project)
    assert (clone / "src/linked.py").is_symlink()
    assert not (clone / "notes.txt").exists()


def test_the_paths_of_the_patch_are_those_that_make_git_dirty(project: Path) -> None:
    write_versions(numpy="0.0.1")
    assert b"requirements/versions.yaml" in uncommitted.difference()
    assert provenance.tags(Stage("train"))["git.dirty"] == "true"
    git("checkout", "--", ".")
    Path("data/new.dvc").write_text("outs: []\n")
    assert b"data/new.dvc" in uncommitted.difference()
    assert provenance.tags(Stage("train"))["git.dirty"] == "true"


def test_without_a_commit_all_files_are_new(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(".git")
    git("init", "--quiet")
    git("add", "src/training")
    (tmp_path / "patch").write_bytes(uncommitted.difference())
    empty = tmp_path / "empty"
    empty.mkdir()
    git("-C", str(empty), "apply", str(tmp_path / "patch"))
    assert (empty / "src/training/loop.py").read_text() == "loop = 1\n"
    assert (empty / "dvc.yaml").read_bytes() == Path("dvc.yaml").read_bytes()
    shutil.rmtree(".git")
    assert uncommitted.difference() == b""


def test_secrets_by_their_names_are_left_out_and_named(project: Path, tmp_path: Path) -> None:
    names = [
        *(".env", "prod.env", ".netrc", ".pgpass", "a.PEM", "a.key", "a.p12", "a.pfx"),
        *("a.keystore", "id_ed25519", "id_rsa.pub", "api_token.txt", "my-Secret.yaml", "PASSWD"),
        *("passwords/all.py", "aws_credentials", "secret_key.py"),
    ]
    for name in names:
        Path("src", name).parent.mkdir(exist_ok=True)
        Path("src", name).write_text("hidden-word\n")
    Path("src/new.py").write_text("new = 1\n")
    text = uncommitted.difference()
    assert b"hidden-word" not in text
    assert uncommitted.files_left_out(text) == [
        f"src/{name} (its name is that of a secret)" for name in sorted(names)
    ]
    assert uncommitted.can_be_applied(text)
    clone = applied(tmp_path)
    assert (clone / "src/new.py").exists()
    assert not [name for name in names if (clone / "src" / name).exists()]


def test_ordinary_code_is_no_secret(project: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.py", "tokens/model.py", "id_map.py", "keys.py", "environment.yaml"):
        Path("src", name).parent.mkdir(exist_ok=True)
        Path("src", name).write_text("here: 1\n")
    Path("data/tokens.dvc").write_text("outs: []\n")
    assert inputs(applied(tmp_path)) == inputs(project)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://john.doe:hidden-word@db.example.com/mlflow",
        "http://john.doe:1/hidden-word@mlflow.example.com:5000",
        "redis://:hidden-word@cache",
    ],
)
def test_an_address_with_a_password_is_left_out(
    project: Path, tmp_path: Path, address: str
) -> None:
    Path("src/kept.py").write_text("kept = 1\n")
    Path("src/old.py").write_text(f"URI = '{address}'\n")
    commit()
    Path("src/old.py").unlink()  # shows what was there
    Path("src/kept.py").write_text("kept = 2\n")
    Path("src/new.py").write_text(f"URI = '{address}'\n")
    Path("src/binary.bin").write_bytes(b"\0" + address.encode())
    text = uncommitted.difference()
    assert b"hidden-word" not in text
    assert uncommitted.files_left_out(text) == [
        f"src/{name} (an address with a password)" for name in ("binary.bin", "new.py", "old.py")
    ]
    clone = applied(tmp_path)
    assert (clone / "src/kept.py").read_text() == "kept = 2\n"
    assert not (clone / "src/new.py").exists()


def test_an_address_without_a_password_stays(project: Path) -> None:
    lines = ["https://example.org/a@b", "f'{scheme}://{user}:{password}@{host}'", "http://a:1/b"]
    Path("src/new.py").write_text("\n".join(lines))
    assert uncommitted.files_left_out(uncommitted.difference()) == []


def test_no_code_of_the_project_looks_like_an_address_with_a_password() -> None:
    code = list((ROOT / "src").rglob("*.py"))
    assert code
    assert [path for path in code if uncommitted.ADDRESS.search(path.read_bytes())] == []


@pytest.mark.parametrize("start", ["", "#"])  # the limit falls into either half of an é
def test_a_long_difference_is_cut_between_lines(start: str, project: Path) -> None:
    lines = ("# " + "\u00e9" * 40 + "\n") * 9_000
    Path("src/one.py").write_text(start + lines, encoding="utf-8")
    Path("src/two.py").write_text(lines, encoding="utf-8")
    text = uncommitted.difference()
    assert uncommitted.LARGEST - 100 < len(text) <= uncommitted.LARGEST + len(uncommitted.CUT)
    assert text.decode().endswith("\u00e9\n" + uncommitted.CUT.decode())
    assert not uncommitted.can_be_applied(text)


def test_a_file_that_is_too_large_is_named(project: Path) -> None:
    Path("src/large.bin").write_bytes(bytes(uncommitted.LARGEST + 1))
    Path("src/new.py").write_text("new = 1\n")
    text = uncommitted.difference()
    assert uncommitted.files_left_out(text) == ["src/large.bin (larger than 1048576 bytes)"]
    assert b"+new = 1\n" in text
    assert not uncommitted.can_be_applied(text)


def test_a_project_in_a_folder_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository/project"
    make_project(folder, monkeypatch)
    shutil.rmtree(folder / ".git")
    monkeypatch.chdir(folder.parent)
    git("init", "--quiet")
    commit()
    monkeypatch.chdir(folder)
    edit("params.yaml", "lr: 0.001", "lr: 0.002")
    edited = Path("params.yaml").read_text()
    Path("src/new.py").write_text("new = 1\n")
    (tmp_path / "patch").write_bytes(uncommitted.difference())
    git("checkout", "--", ".")
    Path("src/new.py").unlink()
    git("apply", str(tmp_path / "patch"))
    assert Path("params.yaml").read_text() == edited
    assert Path("src/new.py").read_text() == "new = 1\n"


def test_a_committed_state_has_none(project: Path) -> None:
    assert uncommitted.difference() == b""
    train()
    [stored] = runs(project)
    assert not (artifacts(project, stored) / "provenance").exists()
