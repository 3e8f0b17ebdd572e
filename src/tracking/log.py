"""What a stage logs; with tracking off, nothing comes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# MLflow sorts charts by name, and test is for the end.
PREFIXES = {"test": "zz_test"}

# Tags of a run, by which it is found again.
KIND = "machine.kind"  # of train: what must be equal for the same bits
MODEL_MD5 = "model.md5"  # of train: what it gave, which its fingerprint does not say
DESCRIPTION = "mlflow.note.content"  # what MLflow shows at the head of a run's page


class Log:
    """What a stage logs; this one, for `machine.tracking: false`, drops it all. No method raises.
    `log_metrics`, `log_epoch` and `log_image` are fast; the others wait for the server."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values such as {"train/loss": 0.3} at a step. Takes microseconds."""

    def log_image(self, name: str, png: bytes) -> None:
        """Write a small PNG to disk as the artifact `name`, such as examples/epoch_005.png."""

    def log_artifact(self, path: Path | str, folder: str = "") -> None:
        """Copy a file into the run, below `folder`."""

    def log_model(self, folder: Path) -> None:
        """Copy the model of `folder` (model.json, model.safetensors) into the run as `model`, for
        `mlflow models serve -m runs:/<run id>/model` (tracking/serving), and tag it `model.md5`."""

    def log_data(self, folder: str, splits: Sequence[str]) -> None:
        """Name these splits of a packed data set as inputs of the run. That of a training also gets
        a copy of what the folder holds for people to look at."""

    def log_input(self, name: str, digest: str, context: str) -> None:
        """Name one data set as an input of the run: `digest` is its md5 as DVC writes it, `context`
        what it was read for (train, val, evaluate test)."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text."""

    def describe(self, markdown: str) -> None:
        """Set the description at the head of the run's page. That of a training also says what
        changed and how to bring the result back."""

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of history as `train/loss`, `val/accuracy`, ... at step row["epoch"]; what is
        of no split (lr) is of the training: MLflow would draw it below all others, also test."""
        metrics = {_by_split(key): value for key, value in row.items() if key != "epoch"}
        self.log_metrics(metrics, int(row["epoch"]))

    def log_machines(self, kinds: Sequence[str]) -> None:
        """Say on which kinds of machine the training ran, one after the other."""
        self.set_tags({KIND: " + ".join(kinds)})

    def log_evaluation(
        self, metrics: Mapping[str, Mapping[str, Any]], epochs: int, best_by: str
    ) -> None:
        """Log the figures of each split for a model that was trained for `epochs`, of which the
        metric `best_by`, such as `val/accuracy`, chose one. The ends of intervals would have charts
        of their own: they stand in the description and metrics.json."""
        for split, values in metrics.items():
            ends = {f"{key}_{end}" for key in values for end in ("low", "high")}
            for key, value in values.items():
                if key in ends:
                    continue
                # These have a curve over the epochs; the kept weights come after its end. All else
                # is a single number, which MLflow draws as a bar if it has no step.
                is_curve = f"{split}/{key}" in ("val/accuracy", "val/macro_f1", best_by)
                name = f"{PREFIXES.get(split, split)}/{key}"
                self.log_metrics({name: float(value)}, epochs + 1 if is_curve else 0)

    def log_curves(self, curves: Mapping[str, Mapping[str, Sequence[float]]], prefix: str) -> None:
        """Log curves from step 1 on: {"subset": {"loss": [2.3, 1.9]}} as `<prefix>/subset_loss`."""
        for curve, series in curves.items():
            for step, values in enumerate(zip(*series.values(), strict=True), 1):
                names = (f"{prefix}/{curve}_{name}" for name in series)
                self.log_metrics(dict(zip(names, values, strict=True)), step)


def _by_split(key: str) -> str:
    """`val/loss` for the column val_loss."""
    split, _, name = key.partition("_")
    return f"{split}/{name}" if split in ("train", "val") else f"train/{key}"
