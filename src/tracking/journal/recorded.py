"""Whether DVC knows of a stage's result. One that ended well is lost when DVC was killed before it
wrote dvc.lock: the stage then runs again, which is no repetition that somebody asked for."""

import os
from pathlib import Path

import yaml

from src.plumbing import process
from src.plumbing.identity import fingerprint_from_lock
from src.plumbing.stage import Stage


def is_lost(stage: Stage, dvc: str) -> bool:
    """Whether DVC runs this stage, and neither a dvc.lock nor the run cache has its fingerprint,
    nor will `dvc`, the process that ran it before, write it there."""
    if "DVC_STAGE" not in os.environ or process.is_alive(dvc):
        return False
    locks = (Path("dvc.lock"), stage.root / "dvc.lock")
    texts = (lock.read_text(encoding="utf-8") for lock in locks if lock.is_file())
    try:
        return not any(_names(text, stage) for text in texts) and not _is_cached(stage)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False  # a file that cannot be read does not say that the result is lost


def _names(lock: str, stage: Stage) -> bool:
    return fingerprint_from_lock(lock, stage.name) == stage.fingerprint


def _is_cached(stage: Stage) -> bool:
    """Each file of the run cache is one stage as it would stand in dvc.lock."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(stage.root)) as repo:
            folder = Path(repo.stage_cache.cache_dir)
    except DvcException as error:
        raise ValueError(str(error)) from None
    command = " ".join(stage.entry.cmd.split()[:3])
    for file in folder.glob("*/*/*"):
        text = file.read_text(encoding="utf-8")
        if command in text:  # before the slow part, which few of many thousands need
            entry = "".join(f"    {line}\n" for line in text.splitlines())
            if _names(f"stages:\n  {stage.name}:\n{entry}", stage):
                return True
    return False
