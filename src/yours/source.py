"""Your own source of samples, for `prepare.source: own`."""

from collections.abc import Iterator, Mapping
from typing import Any

from src.plumbing.errors import InputError
from src.preparation.sources.own import Sample


def own_source(params: Mapping[str, Any]) -> Iterator[Sample]:
    """Each sample of the data set, in any order. Edit it: this one gives scikit-learn's digits.

    `Sample(content, label, split, group, name)`; `split` and `group` may be left out:
    - `content`: the path of an image file, or an image without a file, which then needs a `name` of
      its own: a Pillow image, an array (uint8, H x W or H x W x 1, 3 or 4), or a function without
      arguments that returns one of these. The function runs in a worker process, so that millions
      of images take no memory here.
    - `label`: the name of its class. A sample whose label is empty, such as a stray file, cannot be
      used: `prepare.on_bad` says whether that stops `prepare`.
    - `split`: "train", "val" or "test". Without one, and with "train", a hash of the sample decides
      whether it goes to a val or test that no sample names.
    - `group`: a text, of a patient or a scene; samples of one group stay in one split.

    What you read from the disk must lie in `params["prepare.path"]`, a file or folder: DVC watches
    that alone, and an edit elsewhere would not run `prepare` again. So nothing is downloaded here.
    Samples are pickled for the worker processes: no lambda and no open file, but functools.partial
    of a function of this module. They are sorted by name (of a file: its path below
    `prepare.path`), so their order need not be fixed; all else must be the same at each call. What
    you read of params.yaml, as `params["key"]`, is declared by `python -m src.deps`, as is each
    file of src/ that you import.
    """
    if not params["prepare.path"].endswith("data/builtin/README.md"):
        raise InputError(
            "src/yours/source.py is still the example, which gives scikit-learn's digits and reads "
            f"nothing in prepare.path ({params['prepare.path']}): write own_source for your data"
        )
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).round().astype("uint8")  # 8 x 8 grey levels of 0..16
    for number, (image, digit) in enumerate(zip(images, found.target, strict=True)):
        yield Sample(image, label=str(digit), name=f"digits/{number:04d}")
