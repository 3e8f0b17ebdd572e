import sys
from pathlib import Path

import pytest
import yaml

from src.plumbing.git import head
from src.plumbing.identity import locked_stage
from src.plumbing.stage import Stage
from src.tracking.about import provenance
from tests.conftest import set_params
from tests.tracking.tracked_project import (
    commit,
    edit,
    git,
    make_project,
    write_lock,
    write_versions,
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_project(tmp_path / "project", monkeypatch)


HERE = Path()


def name() -> str:
    return provenance.run_name(Stage("train"))


def test_the_name_tells_what_differs_from_head() -> None:
    assert name() == "train baseline"
    set_params(HERE, lr="1e-3")  # the same value in another spelling
    set_params(HERE, seed="'000'")
    assert name() == "train baseline"
    set_params(HERE, lr="3e-3")
    assert name() == "train lr=0.003"
    edit("src/training/loop.py", "1", "2")
    edit("src/tracking/run.py", "1", "2")  # no dep of the stage
    edit("data/prepared/meta.json", "{}", "{ }")
    write_versions(numpy="0.1")
    assert name() == "train lr=0.003 code:training/loop.py data:prepared numpy=0.1"
    write_lock()  # as DVC does while the pipeline runs, which may also stage it: HEAD's counts
    git("add", "dvc.lock")
    assert name() == "train lr=0.003 code:training/loop.py data:prepared numpy=0.1"
    commit()
    assert name() == "train baseline"


def test_data_are_named_by_what_changed_in_the_stage_that_made_them() -> None:
    def write_whole_lock(size: int, per_class: int) -> None:
        """As DVC does before train begins, with a subset that was made of the data."""
        write_lock()
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        md5 = {dep["path"]: dep["md5"] for dep in lock["stages"]["train"]["deps"]}
        md5["data/subset"] = f"{size}{per_class}.dir"
        for name, keys, deps, out in (
            ("prepare", {"prepare.size": size}, [], "data/prepared"),
            ("subset", {"subset.train_per_class": per_class}, ["data/prepared"], "data/subset"),
        ):
            lock["stages"][name] = {
                "cmd": f"python -m src.{name}",
                "deps": [{"path": path, "md5": md5[path]} for path in deps],
                "params": {"params.yaml": keys},
                "outs": [{"path": out, "md5": md5[out]}],
            }
        Path("dvc.lock").write_text(yaml.safe_dump(lock))

    def of_subset() -> list[str] | None:
        entry = locked_stage(Path("dvc.lock").read_text(), "subset")
        assert entry
        entry = {"cmd": "x", "params": {}, "deps": {"data/subset": entry["outs"]["data/subset"]}}
        return provenance.changes("overfit-check", entry)

    write_whole_lock(32, 20)
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    overfit_check = {"cmd": "x", "deps": [{"path": "data/subset", "md5": "3220.dir"}]}
    lock["stages"]["overfit-check"] = overfit_check
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    commit()
    assert (name(), of_subset()) == ("train baseline", [])
    write_whole_lock(32, 10)
    assert of_subset() == ["subset.train_per_class=10"]
    edit("data/prepared/meta.json", "{}", "{ }")
    write_whole_lock(64, 10)
    assert name() == "train prepare.size=64"
    assert of_subset() == ["subset.train_per_class=10", "prepare.size=64"]
    edit("data/prepared/meta.json", "{ }", "{  }")  # not what prepare wrote
    assert name() == "train data:prepared"


def test_a_path_that_a_param_gives_is_not_named_twice() -> None:
    set_params(HERE, train_on="subset")
    assert name() == "train train_on=subset"
    Path("data/weights/pretrained").write_text("weights")
    set_params(HERE, weights="data/weights/pretrained")
    assert name() == "train train_on=subset weights=data/weights/pretrained"


def test_a_folder_of_code_is_named_by_its_files() -> None:
    edit("dvc.yaml", "src/training/loop.py", "src/training")
    write_lock()
    commit()
    assert name() == "train baseline"
    edit("src/training/loop.py", "1", "2")
    Path("src/training/new.py").write_text("new = 1\n")
    assert name() == "train code:training/loop.py code:training/new.py"
    write_lock()
    git("add", "src")  # committed without its dvc.lock
    git("commit", "--quiet", "-m", "code")
    assert name() == "train code:training/loop.py code:training/new.py"
    commit()
    assert name() == "train baseline"
    edit("src/training/loop.py", "2", "3")
    edit("dvc.lock", "schema", "# changed for another stage\nschema")
    commit()
    Path("src/training/new.py").write_text("new = 2\n")
    assert name() == "train code:training/loop.py code:training/new.py"
    Path("src/training/new.py").unlink()
    Path("src/training/loop.py").rename("src/training/other.py")
    assert name() == ("train code:training/other.py -code:training/loop.py -code:training/new.py")


def test_a_lock_that_is_not_of_its_code_names_the_folder() -> None:
    """What differs from the code that it stands for is not known then."""
    edit("dvc.yaml", "src/training/loop.py", "src/training")
    write_lock()
    edit("src/training/loop.py", "1", "2")
    commit()
    Path("src/training/new.py").write_text("new = 1\n")
    assert name() == "train code:training"


def test_what_is_gone_is_named() -> None:
    edit("dvc.yaml", "[lr, seed, ", "[lr, ")
    edit("dvc.yaml", "[src/training/loop.py, ", "[")
    assert name() == "train -seed -code:training/loop.py"


def test_a_stage_that_head_does_not_know_is_first() -> None:
    Path("dvc.lock").unlink()
    assert name() == "train baseline"  # HEAD's
    git("rm", "--quiet", "--cached", "dvc.lock")
    git("commit", "--quiet", "-m", "no lock")
    assert name() == "train first"


def test_a_long_name_ends_at_80_characters_and_the_tag_has_all() -> None:
    files = [f"src/training/part_{number}.py" for number in range(9)]
    for file in files:
        Path(file).write_text("part = 1\n")
    edit("dvc.yaml", "src/training/loop.py", ", ".join(["src/training/loop.py", *files]))
    set_params(HERE, lr=0.5)
    changed = provenance.tags(Stage("train"))["changed"].split()
    assert changed == ["lr=0.5", *(f"code:training/part_{number}.py" for number in range(9))]
    assert name() == "train lr=0.5 code:training/part_0.py code:training/part_1.py +7"
    set_params(HERE, weights="data/weights/" + "w" * 100)
    Path("data/weights/" + "w" * 100).write_text("weights")
    edit("dvc.yaml", "params: [lr, ", "params: [")
    assert len(name()) == 80
    assert name().endswith("w…")


def test_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "lusty-bird")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:secret@host/db")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada Lovelace")
    stage = Stage("train")
    tags = provenance.tags(stage)
    expected = {
        "mlflow.user": "Ada Lovelace",
        "stage": "train",
        "git.commit": head(),
        "fingerprint": stage.fingerprint,
        "data.md5": stage.deps_md5["data/prepared"],
        "dvc.exp_name": "lusty-bird",
        "dvc.baseline_rev": "a" * 40,
        "git.dirty": "false",
        "versions.match": "true",
        "machine.python": ".".join(map(str, sys.version_info[:3])),
    }
    assert {key: tags.get(key) for key in expected} == expected
    assert tags["machine.cpu"]
    assert "changed" not in tags
    assert "secret" not in str(tags)
    assert all(tags.values())  # an empty tag says nothing
    write_versions(numpy="0.1")
    assert provenance.tags(Stage("train"))["versions.match"] == "false"


def test_the_user_is_the_author_that_git_would_write(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = project / ".dvc/tmp/exps/tmp1"  # a clone, without the configuration
    workspace.mkdir(parents=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv("GIT_AUTHOR_NAME", raising=False)
    monkeypatch.setenv("LOGNAME", "ada@corp")
    assert provenance.user() == "ada"
    git("config", "user.name", "ada@example.org")  # no address leaves the machine
    assert provenance.user() == "ada"
    git("config", "user.name", "Ada Lovelace")
    monkeypatch.chdir(workspace)
    assert provenance.user() == "Ada Lovelace"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace Hopper")
    assert provenance.user() == "Grace Hopper"


def test_only_code_makes_git_dirty() -> None:
    set_params(HERE, lr=0.5)
    Path("results").mkdir()
    Path("results/new.txt").write_text("new")
    assert provenance.tags(Stage("train"))["git.dirty"] == "false"
    Path("src/new.py").write_text("new = 1\n")
    assert provenance.tags(Stage("train"))["git.dirty"] == "true"


def test_the_code_hash_covers_what_is_no_dep() -> None:
    before = provenance.code_sha256()
    Path("src/__pycache__").mkdir()
    Path("src/__pycache__/loop.pyc").write_bytes(b"0")
    assert provenance.code_sha256() == before
    edit("src/tracking/run.py", "1", "2")
    changed = provenance.code_sha256()
    assert changed != before
    Path("src/tracking/run.py").rename("src/tracking/other.py")
    assert provenance.code_sha256() not in (before, changed)


@pytest.mark.parametrize("missing", ["repository", "git"])
def test_without_git_its_tags_are_left_out(
    missing: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "git":
        monkeypatch.setenv("PATH", "")
    else:
        (project / ".git").rename(project / "moved")
    stage = Stage("train")
    assert not [key for key in provenance.tags(stage) if key.startswith("git.")]
    assert provenance.run_name(stage) == "train first"


def test_params_are_the_declared_keys_and_do_not_count_as_read() -> None:
    set_params(HERE, lr="1e-05")
    stage = Stage("train")
    assert provenance.params(stage) == {
        "lr": "1e-05",
        "seed": "0",
        "augment_flip": "false",
        "train_on": "prepared",
        "weights": "data/weights/none",
    }
    assert stage.params.read == set()


def test_a_restored_train_run_is_described_by_dvc_lock() -> None:
    set_params(HERE, lr=0.5)
    write_lock()  # DVC's, after it brought the trained model from its run cache
    stage = Stage("train")
    run_name, params, tags = provenance.restored_train(stage.fingerprint)
    assert run_name == "train restored lr=0.5"
    assert params == provenance.params(stage)
    assert tags == {
        "stage": "train",
        "fingerprint": stage.fingerprint,
        "restored": "true",
        "data.md5": stage.deps_md5["data/prepared"],
        "changed": "lr=0.5",
    }
    run_name, params, tags = provenance.restored_train("f" * 64)  # nobody knows this one
    assert (run_name, params) == ("train restored", {})
    assert tags == {"stage": "train", "fingerprint": "f" * 64, "restored": "true"}
