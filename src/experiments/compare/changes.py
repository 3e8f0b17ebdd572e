"""What differs between two results, by what a person would have changed."""

from dataclasses import dataclass, field

from src.experiments import stored
from src.experiments.stored import Result
from src.plumbing import dvc_files, git, identity
from src.plumbing.errors import InputError

DATA = "data/prepared"
SUBSET = "data/subset"
MADE = (DATA, "results/", stored.MODELS)  # what earlier stages made of the rest


@dataclass(frozen=True)
class Changes:
    """Key or path to (before, after); `code`: files. What cannot reach the result is not in it:
    both were evaluated on the same data, so how these were prepared does not matter."""

    params: dict[str, tuple[str, str]] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)
    data: dict[str, tuple[str, str]] = field(default_factory=dict)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def causes(self) -> list[str]:
        """What could have made the difference: params, files of data, the code, the versions."""
        return [
            *(f"param {key}" for key in self.params),
            *(f"data {path}" for path in self.data),
            *(["code"] if self.code else []),
            *(["package versions"] if self.versions else []),
        ]


def between(before: Result, after: Result) -> Changes:
    """What changed from one result to another, but for the seed."""
    found = Changes()
    subsets = {result.stages["train"]["deps"].get(SUBSET) for result in (before, after)}
    for name in ("train", "evaluate", *(["subset"] if len(subsets) > 1 else [])):
        for item in _differences(before, after, name):
            if item.kind == "dep":
                if item.key.startswith(MADE):
                    continue
                if dvc_files.is_code(item.key):
                    files = _files(item, (before.rev, after.rev))
                    found.code.extend(file for file in files if file not in found.code)
                # Data at another path is what a param names, and that is shown.
                elif item.before and item.now:
                    found.data[item.key] = item.before, item.now
            else:
                kind = found.versions if item.kind == "version" else found.params
                kind[item.key] = _text(item.before), _text(item.now)
    return found


def _differences(before: Result, after: Result, stage: str) -> list[identity.Difference]:
    inputs = (stored.inputs_of(result.stages, stage) for result in (before, after))
    return list(identity.differences(stage, *inputs))


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _files(item: identity.Difference, revs: tuple[str | None, str | None]) -> list[str]:
    """The files below a code dep that differ between two commits (None: the workspace). The dep
    itself where git cannot say."""
    if item.before is None or item.now is None:  # it moved into a folder listed whole, or out of it
        commits = [rev for rev in revs if rev]
        return git.files_between(item.key, *commits) if commits else []
    if item.key.endswith(".py"):
        return [item.key]
    sides = zip((item.before, item.now), revs, strict=True)
    found = [git.commit_of(item.key, md5, rev) for md5, rev in sides if rev]
    return (git.files_between(item.key, *found) if found and all(found) else []) or [item.key]


def require_same_data(names: tuple[str, str], before: Result, after: Result) -> None:
    """InputError unless both were evaluated on the same data."""
    if before.data == after.data:
        return
    keys = [
        f"{item.key} is {_text(item.before)} and {_text(item.now)}"
        for item in _differences(before, after, "prepare")
        if item.kind != "dep"
    ]
    more = " and more" if len(keys) > 3 else ""
    why = f": {', '.join(keys[:3])}{more}" if keys else ""
    raise InputError(
        f"{names[0]} and {names[1]} were evaluated on different data ({DATA} is "
        f"{before.data[: stored.SHORT]} and {after.data[: stored.SHORT]}{why}); run one of them "
        "again on the data of the other"
    )
