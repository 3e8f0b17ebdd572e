"""What differs between two results, by what a person would have changed."""

from dataclasses import dataclass, field

from src.experiments import stored
from src.experiments.stored import Result
from src.plumbing import dvc_files, git, identity
from src.plumbing.errors import InputError

DATA = "data/prepared"
SUBSET = "data/subset"
MADE = ("data/prepared", "results/", stored.MODELS)  # what earlier stages made of the rest
ABSENT = "-"


@dataclass(frozen=True)
class Changes:
    """Key or path to (before, after); `code`: files. What cannot reach the result is not in it:
    both were evaluated on the same pictures, so how these were prepared does not matter."""

    params: dict[str, tuple[str, str]] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)
    data: dict[str, tuple[str, str]] = field(default_factory=dict)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def things(self) -> list[str]:
        """The changes that could each have made the difference: every param, every file of data,
        the code, the versions."""
        return [
            *(f"param {key}" for key in self.params),
            *(f"data {path}" for path in self.data),
            *(["code"] if self.code else []),
            *(["package versions"] if self.versions else []),
        ]


def between(before: Result, after: Result) -> Changes:
    """What changed from one result to another, but for the seed."""
    stages = ["train", "evaluate"]
    if _md5(before, SUBSET) != _md5(after, SUBSET):
        stages.append("subset")
    found = Changes()
    for name in stages:
        for key, pair in _differing_params(before, after, name).items():
            _, is_version, package = key.rpartition(":")
            (found.versions if is_version else found.params)[package] = pair
        old, new = (stored.inputs_of(item.stages, name) for item in (before, after))
        for path in {**old, **new}:
            pair = old.get(path, ABSENT), new.get(path, ABSENT)
            if pair[0] == pair[1] or path.startswith(MADE):
                continue
            if dvc_files.is_code(path):
                files = _files(path, pair, (before.rev, after.rev))
                found.code.extend(file for file in files if file not in found.code)
            elif ABSENT not in pair:  # another path is what a param names, and that is shown
                found.data[path] = pair
    return found


def _files(path: str, pair: tuple[str, str], revs: tuple[str | None, str | None]) -> list[str]:
    """The files below `path`, whose hashes are `pair`, that differ between two commits (None: the
    workspace). `path` itself where git does not tell."""
    if ABSENT in pair:  # it moved into a folder that is listed whole, or out of one
        commits = [rev for rev in revs if rev]
        return git.files_between(path, *commits) if commits else []
    if path.endswith(".py"):
        return [path]
    sides = zip(pair, revs, strict=True)
    found = [git.commit_of(path, md5, rev) for md5, rev in sides if rev]
    return (git.files_between(path, *found) if found and all(found) else []) or [path]


def _md5(result: Result, path: str) -> str | None:
    md5 = result.stages["train"]["deps"].get(path)
    return None if md5 is None else str(md5)


def require_same_data(names: tuple[str, str], before: Result, after: Result) -> None:
    """InputError unless both were evaluated on the same pictures."""
    if before.data == after.data:
        return
    keys = [
        f"{key} is {one} and {other}"
        for key, (one, other) in _differing_params(before, after, "prepare").items()
    ]
    more = " and more" if len(keys) > 3 else ""
    why = f": {', '.join(keys[:3])}{more}" if keys else ""
    raise InputError(
        f"{names[0]} and {names[1]} were evaluated on different data ({DATA} is "
        f"{before.data[: stored.SHORT]} and {after.data[: stored.SHORT]}{why}); run one of them "
        "again on the data of the other"
    )


def _differing_params(before: Result, after: Result, name: str) -> dict[str, tuple[str, str]]:
    """What stage `name` declares as params, versions too, with other values: (before, after)."""
    old, new = (stored.params_of(item.stages, name) for item in (before, after))
    return {
        key: (str(old.get(key, ABSENT)), str(new.get(key, ABSENT)))
        for key in {**old, **new}
        if identity.canonical(old.get(key, ABSENT)) != identity.canonical(new.get(key, ABSENT))
    }
