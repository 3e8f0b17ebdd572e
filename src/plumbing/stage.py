"""What every stage does around its work, so that its result can be trusted.

`run_stage` refuses code from elsewhere, reads and checks params.yaml before anything heavy is
imported, compares the inputs at the end with those at the start, and turns every ending into one
line and an exit code: 0 done, 1 a gate failed, 2 wrong input, 130/143 interrupted.
"""

import functools
import hashlib
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import src
from src.plumbing import dvc_files, hashes, identity, locks, params, process, workspace
from src.plumbing.command import ACTIVATE, guarded
from src.plumbing.errors import GateError, InputError

FILES_LISTED = 5000  # of a folder, to name the one that changed; 2 MB (choice)


class DeclaredParams(Mapping[str, Any]):
    """The params that a stage declares in dvc.yaml; InputError for another one, a change of which
    would not run the stage again. `read`: the keys that were read, for a test of dvc.yaml."""

    def __init__(self, values: Mapping[str, Any], declared: tuple[str, ...]):
        self._values = values
        self.declared = declared
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if not key.startswith(params.UNDECLARED):
            if key not in self.declared:
                raise InputError(
                    f"dvc.yaml: this stage reads {key}, which is none of its params: "
                    "`python -m src.deps` writes them"
                )
            self.read.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.declared)

    def __len__(self) -> int:
        return len(self.declared)


class Stage:
    """A running stage: its name, params and identity, and how its inputs were at the start."""

    def __init__(self, name: str):
        self.name = name
        values = params.load()
        self.entry = dvc_files.stage_entry(name, values)
        self.params = DeclaredParams(values, self.entry.params)
        self.root = workspace.main_repository()
        self.versions = dvc_files.read_versions()
        # What this stage declares as params: its keys of params.yaml and its package versions.
        self.declared = identity.declared_values(self.entry, values, self.versions)
        locked = {package: self.versions.get(package, "") for package in self.entry.versions}
        # The packages whose installed version is not the locked one: (installed, locked).
        self.different_versions = dvc_files.different_versions(locked)
        for package, (installed, _) in self.different_versions.items():
            if installed is None:
                raise InputError(f"{package} is not installed in {sys.executable}: {ACTIVATE}")
        self._at_start = self._state()

    @functools.cached_property
    def deps_md5(self) -> dict[str, str]:
        """The md5 of each dependency, as DVC writes it."""
        return {dep: hashes.md5_of(dep) for dep in self.entry.deps}

    @functools.cached_property
    def fingerprint(self) -> str:
        """What this stage is (src/plumbing/identity.py). GateError if an input changed since the
        start: what is kept under a fingerprint is taken for the work of these very inputs."""
        inputs = {"cmd": self.entry.cmd, "deps": self.deps_md5, "params": self.declared}
        found = identity.fingerprint_of(inputs)
        self.confirm_inputs()
        return found

    def confirm_inputs(self) -> None:
        """GateError if an input changed since the start: DVC records the hashes that files have
        when a stage ends, and would certify this result with inputs that did not make it."""
        try:
            changed = list(identity.differing(self._at_start, self._state(at_end=True)))
        except InputError as error:
            changed = [f"an input ({error})"]
        if changed:
            shown = ", ".join(changed[:3]) + (" and more" if len(changed) > 3 else "")
            raise GateError(
                f"{self.name}: {shown} changed while the stage ran, so its result is not recorded; "
                "put it back and run `dvc repro` (train goes on from its checkpoint), or keep the "
                "edit and run `dvc repro`; to edit during a run use `dvc exp run --temp`"
            )

    def _state(self, at_end: bool = False) -> dict[str, Any]:
        """The inputs in a form to compare: content of code and params, size and time of change of
        data. InputError for one that is missing, but not `at_end`: there it is what changed."""
        values = params.load()
        entry = dvc_files.stage_entry(self.name, values)
        declared = identity.declared_values(entry, values, dvc_files.read_versions())
        state: dict[str, Any] = {"the stage's entry in dvc.yaml": entry}
        for key, value in declared.items():
            state[key if ":" in key else f"{params.FILE}: {key}"] = value
        for dep in entry.deps:
            if not at_end or Path(dep).exists():
                state.update(_file_state(Path(dep)))
        return state


def _file_state(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):  # Path's own raises where a name is too long
        raise InputError(
            f"{path} does not exist: make it with `dvc repro`, fetch it with `dvc pull`, "
            f"or name another file in {params.FILE}"
        )
    return _folder_state(path) if path.is_dir() else {str(path): _content_or_time(str(path))}


def _folder_state(folder: Path) -> dict[str, Any]:
    """The files below a folder with content, or size and time; of very many only their number and a
    sum over all, so that memory does not grow with the data."""
    listed: dict[str, Any] = {}
    count, total = 0, 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not hashes.LEFT_OUT.fullmatch(name)]
        for name in names:
            if hashes.LEFT_OUT.fullmatch(name):
                continue
            file = os.path.join(parent, name)
            if (found := _content_or_time(file)) is None:
                continue
            text = f"{found} {file}".encode("utf-8", "surrogateescape")
            digest = hashlib.blake2b(text, digest_size=8).digest()
            count, total = count + 1, (total + int.from_bytes(digest, "big")) % 2**64
            if count <= FILES_LISTED:
                listed[file] = found
    return listed if count <= FILES_LISTED else {str(folder): (count, total)}


def _content_or_time(file: str) -> Any:
    """What shows that a file changed: of code its content; of data, which is large, size and time
    of change. None for a link that leads nowhere."""
    try:
        found = os.stat(file)
        # To open a named pipe would wait for a writer.
        if file.endswith((".py", ".yaml")) and stat.S_ISREG(found.st_mode):
            return hashlib.md5(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def run_stage(name: str, main: Callable[[Stage], None]) -> None:
    """Run a stage's `main(stage)` and exit with the code of its ending."""
    if (code := guarded(lambda: _guard_and_run(name, main))) and "DVC_EXP_NAME" in os.environ:
        params.mark_as_changed()
    sys.exit(code)


def _guard_and_run(name: str, main: Callable[[Stage], None]) -> None:
    code, here = Path(src.__file__).resolve().parent, Path.cwd().resolve() / "src"
    if code != here:
        raise InputError(f"this would run the code of {code}, not of {here}: unset PYTHONPATH")
    process.end_with_parents()
    # Two processes that write the same outputs: the last one would win, whatever dvc.lock says.
    with locks.hold(locks.of_stage(name), f"runs {name} here"):
        stage = Stage(name)
        _check_arguments(stage.entry, sys.argv[1:])
        if found := stage.different_versions:
            shown = ", ".join(f"{package} {version}" for package, (version, _) in found.items())
            line = f"{name}: installed versions differ from {dvc_files.VERSIONS_FILE}: {shown}; "
            print(f"{line}`make setup` installs the locked ones", file=sys.stderr)
        main(stage)
        stage.confirm_inputs()


def _check_arguments(entry: dvc_files.StageEntry, given: list[str]) -> None:
    """The arguments in a stage's command only show which paths DVC took as inputs when it started,
    before the stages ahead ran. By hand none need to be given."""
    expected = shlex.split(entry.cmd)[3:]
    if not given or given == expected:
        return
    if len(given) != len(expected) or given[0].startswith("-"):
        raise InputError(
            f"{entry.name} takes no arguments: its settings stand in {params.FILE}, "
            f"`dvc repro {entry.name}` runs it"
        )
    raise GateError(
        f"{entry.name}: {params.FILE} changed while an earlier stage ran (now "
        f"{' '.join(expected)}, at the start {' '.join(given)}); run `dvc repro` again"
    )
