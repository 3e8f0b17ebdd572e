"""The trained model as MLflow serves it. A copy of this file lies in the model's folder beside
model.json and model.safetensors, with the code that they need in `code/`; it runs without this
repository. Nothing here imports it: MLflow does, when it saves or loads a model.

It predicts without what `evaluate.flip` and `evaluate.refresh_batchnorm` do for the figures of
`evaluate`.

Input: one column, `image` for images, in each row a file as base64 text (or bytes). Output: per row
`class`, its `probability`, and `probabilities` of all classes by name. What a person should know of
a sample, such as colour that a net of one channel does not see, is logged as a warning, once.
"""

import base64
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

HERE = Path(__file__).resolve().parent


class Predictor:
    """Predicts for new samples as `python -m src.predict` does; on the CPU."""

    def load_context(self, context: Any) -> None:
        with _own_code():
            from src.model.saved import load_model

            self._model, self._about = load_model(HERE)
        self._said: set[str] = set()

    # No type hints: MLflow would take them for the schema.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """A pandas frame with one row per row of `model_input`. MlflowException, which the server
        turns into status 400, for a value that is no sample."""
        import pandas as pd  # type: ignore[import-untyped]

        classes, column = self._about["classes"], next(iter(model_input))
        with _own_code():
            from src.model.prediction import predict_rows, read_sample
            from src.plumbing.errors import InputError

            try:
                rows, noticed = [], Counter[str]()
                for index, value in enumerate(model_input[column]):
                    name = f"{column} of row {index}"
                    rows.append(read_sample(_content(value, name), self._about, name, noticed))
                found = predict_rows(self._model, self._about, rows)
            except InputError as error:
                raise MlflowException.invalid_parameter_value(str(error)) from None
        for what in noticed.keys() - self._said:
            self._said.add(what)
            _LOG.warning("%s: %d of %d rows; not said again", what, noticed[what], len(rows))
        return pd.DataFrame(
            {
                "class": [classes[index] for index in found.argmax(axis=1)],
                "probability": found.max(axis=1),
                "probabilities": [dict(zip(classes, row, strict=True)) for row in found.tolist()],
            }
        )


def _content(value: Any, name: str) -> bytes:
    """The bytes of the file in one value of the input."""
    try:
        if isinstance(value, bytes):
            return value
        return base64.b64decode("".join(value.split()), validate=True)  # `base64` breaks its lines
    except (AttributeError, ValueError):
        text = f"{name} is not base64 text"
        raise MlflowException.invalid_parameter_value(text) from None


@contextmanager
def _own_code() -> Iterator[None]:
    """Inside the block `import src...` gives the model's own files, also in a process that has
    imported those of a repository; that one has its modules back after it."""
    path = str(HERE / "code")
    with _LOCK:
        others = _take_modules()
        sys.modules.update(_own_modules)
        sys.path.insert(0, path)
        try:
            yield
        finally:
            sys.path.remove(path)
            _own_modules.update(_take_modules())
            sys.modules.update(others)


def _take_modules() -> dict[str, Any]:
    names = [name for name in sys.modules if name == "src" or name.startswith("src.")]
    return {name: sys.modules.pop(name) for name in names}


class ServedModel(Predictor, PythonModel):
    """Two classes: MLflow complains of a `predict` without hints that stands in this one."""


_LOCK = threading.RLock()
_LOG = logging.getLogger(__name__)
_own_modules: dict[str, Any] = {}
set_model(ServedModel())
