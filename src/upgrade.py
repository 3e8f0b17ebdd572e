"""Merge what is new upstream into this project: `python -m src.upgrade [FROM]` (make upgrade).

Three versions meet: what this project was made from, what that is now, and this project. The first
two get the form of a project beforehand, as `make new` did it, so that what it took out stays away
and what it wrote is no conflict. What is yours stays as it is here. Where both sides changed the
same lines, git's marks are left in the files; then edit them, `git add` them, and run this again.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from src.base.files import write_text
from src.plumbing import command, git, merging, upstream, workspace
from src.plumbing.errors import GateError, InputError
from src.plumbing.upstream import Note

PAGE = "docs/upgrading.md"
TITLE = "Upgrade to "  # of the commit
# How git merges a file that both sides changed, while this runs alone: between two branches of the
# project it would drop the edits of one of them without a word.
YOURS = ("src/yours", "tests/yours", "recipes", "README.md", "docs/experiments.md")
GENERATED = ("docs/**/params.md", "params.yaml", "dvc.yaml")  # written anew below
OWN_KEYS = "src/yours/params.py"  # whoever edits it has his own section `yours` in params.yaml
LOCKS = ("requirements/*.lock", "requirements/uv.txt", "requirements/versions.yaml")


def main() -> None:
    """The command line."""
    parser = command.parser("upgrade", __doc__)
    parser.add_argument("origin", nargs="?", metavar="FROM", help="an address or a folder")
    given = parser.parse_args().origin
    workspace.require_project()
    note = upstream.read_note(Path(upstream.FILE).read_text(encoding="utf-8"))
    if git.output("rev-parse", "--verify", "--quiet", "MERGE_HEAD"):
        go_on()
        return
    upstream.require_clean()
    if note is None:
        raise InputError("upgrade: this is no project yet: `make new NAME=my-project` makes it one")
    remote = (git.output("remote", "get-url", "upstream") or "").strip()
    if not (origin := given or remote or note.origin):
        raise InputError("upgrade: nobody knows where upstream is: make upgrade FROM=ADDRESS")
    commit = fetch(origin)
    shown = upstream.public(origin)
    if commit == note.commit:
        print(f"upgrade: nothing is new at {shown}: version {note.version} ({commit[:9]})")
        print(declare() or to_run())  # a merge may have been committed by hand
        return
    if git.run("merge-base", "--is-ancestor", commit, note.commit).returncode == 0:
        raise InputError(
            f"upgrade: {shown} is older than what this project has ({note.commit[:9]})"
        )
    merge(replace(note, origin=note.origin or shown), note, commit)


def fetch(origin: str) -> str:
    """The newest commit at an address. InputError if it does not answer."""
    done = git.run("fetch", "--quiet", "--no-tags", origin, "HEAD")
    found = git.output("rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}")
    if done.returncode or found is None:
        raise InputError(
            f"upgrade: cannot fetch from {upstream.public(origin)}: {_words(done.stderr)}"
        )
    return found.strip()


def merge(note: Note, had: Note, commit: str) -> None:
    """Bring in what is new between the note's commit and this one, and commit it. GateError, with
    the files, where git needs help."""
    if git.output("cat-file", "-t", note.commit) is None:
        raise InputError(
            f"upgrade: the commit {note.commit[:9]}, which {upstream.FILE} notes as the one that "
            "this project was made from, is neither here nor upstream: note one that is, with the "
            "files that you began with"
        )
    base = upstream.project_tree(note.commit, note.name, had.origin)
    theirs = upstream.project_tree(commit, note.name, note.origin)
    ours = git.head()
    now = upstream.read_note(_at(theirs, upstream.FILE))
    assert now is not None
    print(f"upgrade: version {note.version} ({note.commit[:9]}) -> {now.version} ({commit[:9]})")
    is_own = _at(ours, OWN_KEYS) != _at(base, OWN_KEYS)
    texts = [_at(tree, "params.yaml") for tree in (base, theirs, ours)]
    params, said = merging.merged_params(*texts, *(["yours."] if is_own else []))
    pipeline, is_clear = _merged_pipeline(*(_at(x, "dvc.yaml") for x in (base, theirs, ours)))
    _merge_trees(base, ours, theirs, f"upstream {now.version}")
    write_text("params.yaml", params)
    write_text("dvc.yaml", pipeline)
    git.run("add", "params.yaml", *(["dvc.yaml"] if is_clear else []))
    if not is_clear:
        _mark_conflict("dvc.yaml", base, ours, theirs)
    both = sorted(_changed(base, ours) & _changed(base, theirs) & _changed(ours, theirs))
    kept = [path for path in both if path.startswith(YOURS)]
    _keep(kept)
    for line in said:
        print(f"  params   {line}")
    if kept:
        print(f"  yours    {', '.join(kept)}: upstream changed this too:")
        print(f"           git diff {base[:9]} {theirs[:9]} -- {' '.join(kept)}")
    if any(path.startswith("requirements/") for path in both):
        print("  locks    those of upstream: `make lock` puts in the packages that you added")
    # Last: with these two a merge is under way, which this command goes on with.
    write_text(_state("MERGE_MSG"), f"{TITLE}{now.version} of upstream ({commit[:9]})\n")
    write_text(_state("MERGE_HEAD"), f"{commit}\n")
    go_on()


def _merge_trees(base: str, ours: str, theirs: str, label: str) -> None:
    """Merge into the files here and into git's index. InputError if git refuses."""
    with tempfile.TemporaryDirectory() as temporary:
        attributes = Path(temporary, "attributes")
        attributes.write_text(
            "".join(f"/{path} merge=ours\n/{path}/** merge=ours\n" for path in YOURS)
            + "".join(f"/{path} merge=ours\n" for path in GENERATED)
            + "".join(f"/{path} merge=theirs\n" for path in LOCKS)
        )
        settings = {"core.attributesFile": str(attributes), "merge.ours.driver": "true"}
        settings["merge.theirs.driver"] = "cp -f %B %A"
        options = [word for key, text in settings.items() for word in ("-c", f"{key}={text}")]
        labels = {f"GITHEAD_{ours}": "here", f"GITHEAD_{theirs}": label}
        command = [*options, "merge-recursive", base, "--", ours, theirs]
        done = git.run(*command, environment=labels)
    if done.returncode and not _unmerged():
        raise InputError(f"upgrade: nothing was merged: {_words(done.stderr or done.stdout)}")


def _merged_pipeline(base: str, theirs: str, ours: str) -> tuple[str, bool]:
    """The text of dvc.yaml, and whether it is free of conflicts."""
    texts = {"here": merging.aligned(ours, theirs), "before": merging.aligned(base, theirs)}
    texts["upstream"] = theirs
    with tempfile.TemporaryDirectory() as temporary:
        for name, text in texts.items():
            Path(temporary, name).write_text(text, encoding="utf-8")
        labels = [word for name in texts for word in ("-L", name)]
        files = [f"{temporary}/{name}" for name in texts]
        done = git.run("merge-file", "-p", *labels, *files)
    if done.returncode > 127:  # else the number of conflicts
        raise InputError(f"upgrade: git cannot merge dvc.yaml: {_words(done.stderr)}")
    return done.stdout.decode("utf-8"), done.returncode == 0


def _mark_conflict(path: str, *trees: str) -> None:
    """Tell git's index of a conflict in a file, given the trees base, ours and theirs."""
    found = ((git.output("rev-parse", f"{tree}:{path}") or "").strip() for tree in trees)
    stages = "".join(f"100644 {blob} {n}\t{path}\n" for n, blob in enumerate(found, 1))
    git.run("update-index", "--index-info", given=f"0 {'0' * 40}\t{path}\n{stages}".encode())


def go_on() -> None:
    """Finish an upgrade that is under way: declare what the code reads, commit, and say what is
    next. GateError, which says how to go on or back, where there is something to mend."""
    message = _state("MERGE_MSG")
    if not (message.is_file() and message.read_text(encoding="utf-8").startswith(TITLE)):
        raise InputError(
            "upgrade: a merge is under way: finish it with `git commit`, or take it back with "
            "`git merge --abort`"
        )
    back = "`make upgrade` again goes on, `git merge --abort` takes all of it back"
    if files := _unmerged():
        raise GateError(
            f"upgrade: both sides changed {', '.join(files)}: edit, then `git add` them (`git rm` "
            f"what shall go), and {back}"
        )
    if trouble := declare():
        raise GateError(f"upgrade: {trouble}: mend it, `git add` the file, and {back}")
    git.run("add", "--update")
    done = git.run("commit", "--quiet", "--no-edit")
    if done.returncode:
        raise GateError(
            f"upgrade: git does not commit: {_words(done.stderr or done.stdout)}; {back}"
        )
    print(f"upgrade: done, as commit {git.head()[:9]}: `git show --stat` lists the files")
    for section in news(_at("HEAD^1", PAGE), _at("HEAD", PAGE)):
        print(f"\n{section}")
    print(f"\n{to_run()}")


def declare() -> str:
    """Bring dvc.yaml and the page of the params up to date with the merged code: what is wrong with
    that, empty if nothing."""
    done = _python("-m", "src.deps")
    return _words(done.stderr) if done.returncode else ""


def news(before: str, now: str) -> list[str]:
    """The sections of docs/upgrading.md that are not in the text of it before."""
    had = re.split(r"(?m)^(?=## )", before)
    return [section.strip() for section in re.split(r"(?m)^(?=## )", now)[1:] if section not in had]


def to_run() -> str:
    """What `dvc repro` will run, in a line."""
    done = _python("-m", "dvc", "repro", "--dry")
    stages = re.findall(r"(?m)^Running stage '(.+)'", done.stdout.decode("utf-8", "replace"))
    if not stages and done.returncode:
        return f"What `dvc repro` will run is not known: {_words(done.stderr or done.stdout)}"
    if not stages:
        return "`dvc repro` has nothing to run."
    return (
        f"`dvc repro` will run {', '.join(stages)}, and what depends on their outputs where these "
        "change; commit dvc.lock and results afterwards."
    )


def _keep(paths: list[str]) -> None:
    """Of files that one side removed and the other changed: as they are here."""
    for path in set(_unmerged()) & set(paths):
        here = git.run("cat-file", "-e", f"HEAD:{path}").returncode == 0
        git.run(*(("checkout", "HEAD", "--", path) if here else ("rm", "--quiet", "--", path)))


def _changed(one: str, other: str) -> set[str]:
    listed = git.printed("diff-tree", "-r", "-z", "--no-renames", "--name-only", one, other)
    return set(filter(None, listed.split("\0")))


def _unmerged() -> list[str]:
    listed = git.printed("diff", "-z", "--name-only", "--diff-filter=U")
    return sorted(filter(None, set(listed.split("\0"))))


def _at(tree: str, path: str) -> str:
    return git.output("cat-file", "blob", f"{tree}:{path}") or ""


def _state(name: str) -> Path:
    return Path((git.output("rev-parse", "--git-path", name) or "").strip())


def _python(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """The merged code, in a process of its own: this one has the old."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, check=False)


def _words(printed: bytes) -> str:
    return " ".join(printed.decode("utf-8", "replace").split()[:40])


if __name__ == "__main__":
    sys.exit(command.guarded(main))
