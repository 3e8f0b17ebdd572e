"""Small projects to test in: a folder with what a stage needs, and one whose stages have run."""

import functools
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import pytest

from src import prepare
from src.base.files import fresh_directory
from src.base.imports import ROOT
from src.data.packed import PackedSplit
from src.data.split import SPLITS
from src.plumbing import params, process
from src.plumbing.command import guarded
from src.plumbing.dvc_files import STAGES
from src.plumbing.stage import Stage
from tests import template
from tests.sharing import once_for_all

process.share_cores()  # before a test imports torch

SLOW_SECONDS = 3600  # for a slow test, where the fast ones have those of pyproject.toml (choice)
# Small enough for seconds, large enough to learn something.
SMALL = {
    "model": "test_resnet",
    "epochs": 3,
    "batch_size": 16,
    "threads": 1,
    "source": "synthetic",
    "size": 16,
    "channels": 3,
    "synthetic_classes": 3,
    "synthetic_pictures": 60,
    "tracking": "false",
    "progress": "off",
}


def pytest_configure() -> None:
    """What a shell runs in the background ignores these, and all that it starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests get more time; the slowest go first, so that all processes end together."""
    seconds = {}
    for item in items:
        if marker := item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
            seconds[item.nodeid] = marker.kwargs.get("seconds", 0)
    items.sort(key=lambda item: -seconds.get(item.nodeid, 0))


def free_port() -> int:
    """A free port of 127.0.0.1, below the range from which the system gives ports away."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


@functools.cache
def code() -> dict[Path, bytes]:
    """The files of src/ and requirements/. Writing them takes a quarter of the time of a copy."""
    below = [path for name in ("src", "requirements") for path in (ROOT / name).rglob("*.*")]
    files = [path for path in below if path.is_file() and path.parent.name != "__pycache__"]
    return {path.relative_to(ROOT): path.read_bytes() for path in files}


def copy_project(target: Path) -> Path:
    """The files of the repository that stages read, in `target`, with the template's params."""
    template.write(target)
    for folder in {path.parent for path in code()}:
        (target / folder).mkdir(parents=True, exist_ok=True)
    for path, content in code().items():
        (target / path).write_bytes(content)
    return target


def set_params(project: Path, **values: object) -> None:
    """Write values into params.yaml by key; its last part does where no other key ends in it."""
    path = project / "params.yaml"
    text = path.read_text()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        start = text.index(f"\n{section}:") if section else 0
        line, new = re.compile(rf"(?m)^( *){name}:[^#\n]*"), rf"\g<1>{name}: {value} "
        changed, count = line.subn(new, text[start:], count=1)
        assert count == 1, f"no key {key}"
        text = text[:start] + changed
    path.write_text(text)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        yield


def run_stage(project: Path, name: str) -> Stage:
    """Run a stage in this process, as `python -m` would in the project's folder."""
    with working_in(project):
        stage = Stage(name)
        import_module("src." + name.replace("-", "_")).main(stage)
    return stage


def run_unchecked(project: Path) -> None:
    """All stages but overfit-check, of which train wants its word alone."""
    for name in ("prepare", "subset"):
        run_stage(project, name)
    verdict = project / "results/overfit_check/verdict.json"
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"proceed": true}')
    for name in ("train", "evaluate"):
        run_stage(project, name)


def packed(project: Path) -> dict[str, PackedSplit]:
    """The splits that `prepare` packs in the project, without the figures, which take longer."""
    with working_in(project):
        values = params.load()
        with fresh_directory(prepare.OUT) as folder:
            prepare.pack(values, folder, Path(".cache/prepare"))
    return {split: PackedSplit(project / prepare.OUT, split) for split in SPLITS}


def python(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def run_main(
    main: Callable[[], None],
    arguments: Sequence[object],
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a tool's `main` with these arguments, in this process."""
    patch.setattr(sys, "argv", ["tool", *map(str, arguments)])
    try:
        code = guarded(main)
    except SystemExit as ended:  # argparse's own
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with small settings, in which no stage has run."""
    folder = copy_project(tmp_path / "project")
    set_params(folder, **SMALL)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Stage]]:
    """A project in which all five stages have run, and the stages. Read only: copy to change."""
    with once_for_all("finished", tmp_path_factory) as shared:
        folder, stages = shared / "project", shared / "stages.pickle"
        if not stages.exists():
            copy_project(folder)
            set_params(folder, **SMALL)
            stages.write_bytes(pickle.dumps({name: run_stage(folder, name) for name in STAGES}))
    return folder, pickle.loads(stages.read_bytes())


@pytest.fixture
def copied(finished: tuple[Path, dict[str, Stage]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Gives back afterwards what `prepare_device` sets for the whole process."""
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    memory = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture(scope="session")
def few(finished: tuple[Path, dict[str, Stage]]) -> tuple[PackedSplit, PackedSplit]:
    """A training split of three steps of 16, and a validation split."""
    folder = finished[0] / "data/prepared"
    train, val = PackedSplit(folder, "train"), PackedSplit(folder, "val")
    train.labels, train.paths, train.sha256 = train.labels[:48], train.paths[:48], train.sha256[:48]
    return train, val
