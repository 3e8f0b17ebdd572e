"""mixup and CutMix: per sample, functions of (seed, step)."""

import math

import numpy as np
import pytest
import torch

from src.images.mix import Mix
from tests.images.test_augment import random_rows

MIXES = {"mixup": Mix(0.4, 0, 64), "cutmix": Mix(0, 1.0, 64), "both": Mix(0.4, 1.0, 64)}
each_mix = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def numbered(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that hold their own number, which is their class too."""
    labels = torch.arange(count)
    return labels.byte()[:, None, None, None].expand(-1, 16, 12, 3).contiguous(), labels


def test_no_mix_changes_nothing() -> None:
    images, labels = numbered()
    same, targets = Mix(0, 0, 64)(images, labels, 0, 0)
    assert same is images
    assert targets is labels


@each_mix
def test_targets_are_the_shares_of_the_images(mix: Mix) -> None:
    images, labels = numbered()
    mixed, targets = mix(images, labels, 0, 0)
    assert mixed.shape == images.shape
    assert mixed.dtype == targets.dtype == torch.float32
    assert targets.shape == (64, 64)
    assert (targets >= 0).all()
    assert (targets.sum(1) - 1).abs().max() < 1e-6
    assert ((targets > 0).sum(1) <= 2).all()
    numbers = targets @ labels.float()
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), numbers, atol=1e-3)
    assert mixed.min() >= 0
    assert mixed.max() <= 255


def test_mixup_is_one_weighted_sum_per_sample() -> None:
    images = random_rows(64, 8, 8, 1)
    mixed, targets = MIXES["mixup"](images, torch.arange(64), 0, 0)
    expected = torch.einsum("st,thwc->shwc", targets, images.float())
    assert torch.allclose(mixed, expected, atol=1e-3)
    assert len({round(share, 5) for share in targets.diag().tolist()}) > 50


def test_cutmix_pastes_a_rectangle() -> None:
    images, labels = numbered()
    mixed, targets = MIXES["cutmix"](images, labels, 0, 0)
    sizes = set()
    for number, (image, target) in enumerate(zip(mixed[..., 0], targets, strict=True)):
        pasted = image != number
        assert target[number].item() == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)
        if pasted.any():
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert rows * columns == pasted.sum()
            assert len(image[pasted].unique()) == 1
            sizes.add((int(rows), int(columns)))
    assert len(sizes) > 20


def test_partners_are_a_random_permutation() -> None:
    images, labels = numbered()
    partners = []
    for step in range(2):
        _, targets = MIXES["mixup"](images, labels, 0, step)
        partner = (targets - torch.diag(targets.diag())).argmax(1)
        partner = torch.where(targets.diag() == 1, labels, partner)
        assert torch.equal(partner.sort().values, labels)
        assert len(((partner - labels) % 64).unique()) > 20
        partners.append(partner)
    assert not torch.equal(*partners)


@each_mix
def test_every_draw_follows_seed_and_step(mix: Mix) -> None:
    first = mix.draw(200, 16, 16, 0, 0)
    for seed, step in ((0, 1), (1, 0)):
        other = mix.draw(200, 16, 16, seed, step)
        assert (first[1] == other[1]).double().mean() < 0.2
        assert mix is not MIXES["both"] or not torch.equal(first[0], other[0])
        if mix is MIXES["cutmix"]:
            middles = torch.stack([draw[2][2] + draw[2][3] for draw in (first, other)])
            assert torch.corrcoef(middles.double())[0, 1].abs() < 0.25


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_beta(alpha: float) -> None:
    is_cutmix, share, rectangles = Mix(alpha, 0, 2).draw(8000, 16, 16, 0, 0)
    assert not is_cutmix.any()
    assert not rectangles.any()
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_cutmix_rectangles_are_timms() -> None:
    from timm.data.mixup import cutmix_bbox_and_lam

    is_cutmix, share, (top, bottom, left, right) = Mix(0, 1.0, 2).draw(8000, 8, 12, 0, 0)
    assert is_cutmix.all()
    pasted = ((bottom - top) * (right - left)).double()
    assert torch.allclose(share, 1 - pasted / 96)
    np.random.seed(0)
    drawn = [cutmix_bbox_and_lam((3, 8, 12), np.random.beta(1, 1)) for _ in range(8000)]
    boxes = np.array([box for box, _ in drawn]).T
    for ours, theirs in zip((top, bottom, left, right), boxes, strict=True):
        assert ours.double().mean().item() == pytest.approx(theirs.mean(), abs=0.2)
        assert ours.double().std().item() == pytest.approx(theirs.std(), abs=0.15)
    assert share.mean().item() == pytest.approx(np.mean([lam for _, lam in drawn]), abs=0.015)


def test_both_take_each_for_half_of_the_samples() -> None:
    is_cutmix, share, _ = MIXES["both"].draw(2000, 16, 16, 0, 0)
    assert is_cutmix.double().mean().item() == pytest.approx(0.5, abs=0.05)
    _, mixup, _ = MIXES["mixup"].draw(2000, 16, 16, 0, 0)
    _, cutmix, _ = MIXES["cutmix"].draw(2000, 16, 16, 0, 0)
    assert torch.equal(share, torch.where(is_cutmix, cutmix, mixup))


@each_mix
def test_mix_follows_seed_and_step_alone(mix: Mix) -> None:
    images, labels = random_rows(32, 16, 16, 1), torch.arange(32)
    before = images.clone()
    torch.manual_seed(1)
    np.random.seed(1)
    first = mix(images, labels, 0, 5)
    torch.manual_seed(9)
    np.random.seed(9)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    again = mix(images, labels, 0, 5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(before, images)
    assert torch.equal(labels, torch.arange(32))
    for seed, step in ((0, 6), (1, 5)):
        assert not torch.equal(first[0], mix(images, labels, seed, step)[0])


@each_mix
def test_mix_depends_on_no_values_on_the_device(mix: Mix) -> None:
    images = torch.empty(8, 16, 16, 3, dtype=torch.uint8, device="meta")
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    mixed, targets = mix(images, labels, 0, 0)
    assert mixed.shape == images.shape
    assert targets.shape == (8, 64)
    assert targets.device.type == "meta"


def test_one_sample_meets_itself() -> None:
    images = random_rows(1, 8, 8, 1)
    mixed, targets = Mix(1.0, 1.0, 3)(images, torch.tensor([2]), 0, 0)
    assert torch.allclose(mixed, images.float(), atol=1e-3)
    assert math.isclose(targets[0, 2].item(), 1, abs_tol=1e-6)
