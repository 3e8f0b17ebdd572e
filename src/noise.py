"""The noise of this project: what other seeds of the same configuration gave, from the experiments
themselves."""

import json

from src import pipeline, repository

SEED = "seed"


def seeds_like(lock: str) -> dict[str, float]:
    """Validation accuracy by seed of all experiments and commits whose training in dvc.lock is that
    of `lock` but for `seed`; the newest of each seed counts."""
    wanted = _without_seed(lock)
    found: dict[str, float] = {}
    if wanted is None:
        return found
    for rev in revisions():
        text = repository.git("show", f"{rev}:./dvc.lock")
        metrics = repository.git("show", f"{rev}:./{repository.METRICS}")
        if text and metrics and _without_seed(text) == wanted:
            train = pipeline.locked_stage(text, "train")
            assert train is not None
            seed = str(train["params"][SEED])
            found.setdefault(seed, json.loads(metrics)["val"]["accuracy"])
    return found


def revisions() -> list[str]:
    """Commits that may hold a result: those of experiments, then those that changed one, the newest
    first."""
    results = ("dvc.lock", repository.METRICS)
    commits = (repository.git("log", "--all", "--format=%H", "--", *results) or "").split()
    return list(dict.fromkeys([item.rev for item in repository.experiments()] + commits))


def _without_seed(lock: str) -> tuple[dict, dict] | None:
    """What decides a training but for its seed: its params, and its inputs by path."""
    train = pipeline.locked_stage(lock, "train")
    if train is None or SEED not in train["params"]:
        return None
    params = {
        key: str(pipeline.canonical(value)) for key, value in train["params"].items() if key != SEED
    }
    return params, train["deps"]
