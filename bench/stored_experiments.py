"""Many finished experiments in a project, without training them: commits, records, MLflow runs.

All are of the result in HEAD, of which they differ in `seed`, `lr` and what follows from these: ten
seeds of each learning rate. For bench/growth.py.
"""

import hashlib
import json
import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from src.plumbing import git, identity
from src.plumbing.identity import METRICS
from src.tracking.journal.journal import Record, now, record_path
from src.tracking.log import MODEL_MD5
from src.tracking.store import store

if TYPE_CHECKING:
    from mlflow import MlflowClient

SEEDS = 10
EPOCHS = 2  # the tools read no points
COMMITTER = "Somebody <somebody@example.org> 1767225600 +0000"
NET, ABOUT = "models/model.safetensors", identity.MODEL


def learning_rate(number: int) -> str:
    """That of experiment `number`; none is that of HEAD."""
    return f"{0.0101 + 0.0001 * (number // SEEDS):g}"


def name(number: int) -> str:
    return f"lr-{learning_rate(number)}-{number % SEEDS}"


def add(project: Path, numbers: range) -> list[str]:
    """Add experiments of these numbers on HEAD, which holds a whole result; the ids of their MLflow
    runs."""
    head = git.printed("rev-parse", "HEAD", folder=project).strip()
    lock, params, metrics = (
        git.printed("show", f"HEAD:{path}", folder=project)
        for path in ("dvc.lock", "params.yaml", METRICS)
    )
    train = identity.locked_stage(lock, "train")
    assert train is not None
    net, about = train["outs"][NET], train["outs"][ABOUT]
    description = json.loads(_cached(project, about).read_text())
    client, experiment = store.open_store(project)
    stream, ids = [], []
    for number in numbers:
        given = {"seed": str(number % SEEDS), "lr": learning_rate(number)}
        scores = _scores(metrics, number)
        made = lock.replace(net, _md5(f"net {number}")).replace(_md5(metrics), _md5(scores))
        for key, value in given.items():
            made = re.sub(rf"(?m)^( {{8}}{key}:) .*$", rf"\g<1> {value}", made)
        entry = identity.locked_stage(made, "train")
        assert entry is not None
        fingerprint = identity.fingerprint_of(entry)
        described = json.dumps({**description, "fingerprint": fingerprint})
        made = made.replace(about, _md5(described))
        path = _cached(project, _md5(described))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(described)
        changed = params
        for key, value in given.items():
            changed = re.sub(rf"(?m)^({key}:) *[^ #]+", rf"\g<1> {value}", changed)
        ref = f"refs/exps/{head[:2]}/{head[2:]}/{name(number)}"
        stream.append(f"commit {ref}\ncommitter {COMMITTER}\ndata 0\nfrom {head}\n")
        for file, text in (("dvc.lock", made), ("params.yaml", changed), (METRICS, scores)):
            stream.append(f"M 100644 inline {file}\ndata {len(text.encode())}\n{text}\n")
        tags = {
            "stage": "train",
            "fingerprint": fingerprint,
            "dvc.exp_name": name(number),
            MODEL_MD5: entry["outs"].get(NET, ""),
        }
        ids.append(_run(project, client, experiment, f"train {name(number)}", tags, entry))
        check = identity.locked_stage(made, "overfit-check")
        assert check is not None
        _record(project, identity.fingerprint_of(check), ids[-1], experiment, "overfit-check")
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=project, input="".join(stream), text=True, check=True
    )
    return ids


def _run(
    root: Path,
    client: "MlflowClient",
    experiment: str,
    title: str,
    tags: dict[str, str],
    entry: identity.Entry,
) -> str:
    """A finished MLflow run with the points of EPOCHS epochs, and its local record; its id."""
    from mlflow.entities import Metric

    run = store.create_run(client, experiment, title, tags, now())
    run_id = run.info.run_id
    store.write(client, run_id, {}, dict(list(entry["params"].items())[:100]))
    keys = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/macro_f1", "lr")
    points = [Metric(key, 0.5, now(), epoch) for epoch in range(1, EPOCHS + 1) for key in keys]
    client.log_batch(run_id, metrics=points)
    client.set_terminated(run_id)
    _record(root, tags["fingerprint"], run_id, experiment, title)
    return str(run_id)


def _record(root: Path, fingerprint: str, run_id: str, experiment: str, title: str) -> None:
    path, stage = record_path(root, fingerprint), title.split()[0]
    Record(path, run_id, experiment, title, stage, "finished", store=store.name(root)).save()


def _scores(metrics: str, number: int) -> str:
    """The text of metrics.json with other accuracies."""
    found, draws = json.loads(metrics), random.Random(number)
    for group in found.values():
        group["accuracy"] = round(draws.uniform(0.9, 0.99), 4)
    return json.dumps(found, indent=2) + "\n"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def _cached(project: Path, md5: str) -> Path:
    return project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
