"""Your own augmentation comes after that of the kind of sample."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from src.plumbing.errors import InputError
from src.training.augment import augmentation
from src.yours import augment as yours
from tests.training.trainings import PARAMS

ROWS = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).reshape(2, 8, 8, 3)


def test_it_gets_what_the_others_made_and_the_seed_and_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def own(rows: torch.Tensor, seed: int, step: int, params: Any) -> torch.Tensor:
        seen.append((rows, seed, step, params["augment_crop"]))
        return 255 - rows

    monkeypatch.setattr(yours, "own_augment", own)
    of_kind = augmentation({**PARAMS, "augment_own": False}, "images")(ROWS, 5, 7)
    changed = augmentation({**PARAMS, "augment_own": True}, "images")(ROWS, 5, 7)
    [(rows, *rest)] = seen
    assert torch.equal(rows, of_kind)
    assert not torch.equal(rows, ROWS)
    assert rest == [5, 7, PARAMS["augment_crop"]]
    assert torch.equal(changed, 255 - of_kind)


@pytest.mark.parametrize(
    ("returned", "got"), [(ROWS[:1], "1x8x8x3 on cpu"), (ROWS.float(), None), (None, "a NoneType")]
)
def test_it_must_give_back_a_batch_like_its_own(
    returned: Any, got: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yours, "own_augment", lambda *_: returned)
    augment = augmentation({**PARAMS, "augment_own": True}, "images")
    if got is None:
        assert augment(ROWS, 0, 0) is returned
        return
    with pytest.raises(InputError, match=rf"src/yours/augment.py must return .*2x8x8x3.*{got}$"):
        augment(ROWS, 0, 0)


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), lambda: np.random.rand(), lambda: random.random()]
)
def test_it_must_not_draw_from_a_generator_that_everyone_uses(
    draw: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yours, "own_augment", lambda rows, *_: (draw(), rows)[1])
    augment = augmentation({**PARAMS, "augment_own": True}, "images")
    with pytest.raises(InputError, match=r"src/yours/augment.py draws from a global generator"):
        augment(ROWS, 0, 0)
