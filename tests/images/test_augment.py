"""Augmentation, mixup and CutMix: per sample, functions of (seed, step), with right geometry."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.base.randomness import generator
from src.images import augment, geometry
from src.images.augment import Augmentation
from src.images.mix import Mix

FEATURES = {
    "crop": Augmentation(2),
    "flip": Augmentation(flip=True),
    "vertical_flip": Augmentation(vertical_flip=True),
    "scale": Augmentation(scale=0.3),
    "rotation": Augmentation(rotation=30.0),
    "color": Augmentation(color=0.4),
    "erase": Augmentation(erase=0.7),
}
EVERYTHING = Augmentation(
    2, True, vertical_flip=True, scale=0.3, rotation=30.0, color=0.4, erase=0.5
)
each_feature = pytest.mark.parametrize(
    "augmentation", [*FEATURES.values(), EVERYTHING], ids=[*FEATURES, "everything"]
)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(0, "noise", 0), dtype=torch.uint8)


def smooth(count: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """Pictures whose values a resampling can only get right at the right place."""
    small = noise(count, channels, 4, 4).float()
    large = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return large.clamp(0, 255).permute(0, 2, 3, 1).contiguous()


def windows(picture: np.ndarray, crop: int, flip: bool, vertical_flip: bool) -> set[bytes]:
    """All that padding by `crop` (edges repeated), cropping and flipping can make of a picture."""
    height, width, _ = picture.shape
    padded = np.pad(picture, ((crop, crop), (crop, crop), (0, 0)), mode="edge")
    found = set()
    for y in range(2 * crop + 1):
        for x in range(2 * crop + 1):
            window = padded[y : y + height, x : x + width]
            for rows in (1, -1) if vertical_flip else (1,):
                for columns in (1, -1) if flip else (1,):
                    found.add(window[::rows, ::columns].tobytes())
    return found


@pytest.mark.parametrize(
    ("crop", "flip", "vertical_flip"),
    [(0, True, False), (2, False, False), (0, False, True), (3, True, True)],
)
def test_crop_and_flips_are_pad_crop_and_flip_per_sample(
    crop: int, flip: bool, vertical_flip: bool
) -> None:
    pictures = noise(40, 16, 12, 3)
    changed = Augmentation(crop, flip, vertical_flip=vertical_flip)(pictures, seed=0, step=0)
    assert changed.shape == pictures.shape
    assert changed.dtype == torch.uint8
    for before, after in zip(pictures.numpy(), changed.numpy(), strict=True):
        assert after.tobytes() in windows(before, crop, flip, vertical_flip)


@pytest.mark.parametrize(("crop", "flip"), [(0, True), (2, False), (3, True)])
def test_crop_and_flip_keep_their_draws(crop: int, flip: bool) -> None:
    """Committed results hang on these bits: one purpose, shifts of rows and columns, then flips."""
    pictures = noise(32, 16, 16, 1)
    draws = generator(4, "augment", 9)
    shift = torch.randint(-crop, crop + 1, (2, 32, 1), generator=draws)
    mirrored = torch.randint(0, 2, (32, 1), generator=draws)[:, 0].tolist()
    expected = []
    for picture, (down,), (across,), mirror in zip(
        pictures, *shift.tolist(), mirrored, strict=True
    ):
        rows = (torch.arange(16) + down).clamp(0, 15)
        columns = (torch.arange(16) + across).clamp(0, 15)
        moved = picture[rows][:, columns]
        expected.append(moved.flip(1) if mirror and flip else moved)
    assert torch.equal(Augmentation(crop, flip)(pictures, 4, 9), torch.stack(expected))


def test_no_augmentation_changes_nothing() -> None:
    pictures = noise(8, 16, 16, 1)
    assert Augmentation()(pictures, 0, 0) is pictures


@each_feature
def test_samples_of_a_batch_differ(augmentation: Augmentation) -> None:
    same = noise(1, 20, 20, 3).expand(200, -1, -1, -1)
    kinds = {row.numpy().tobytes() for row in augmentation(same, 0, 0).contiguous()}
    flips_alone = augmentation in (FEATURES["flip"], FEATURES["vertical_flip"])
    expected = 2 if flips_alone else 20 if augmentation == FEATURES["crop"] else 120
    assert len(kinds) >= expected


@pytest.mark.parametrize("name", ["flip", "vertical_flip"])
def test_about_half_of_the_samples_are_flipped(name: str) -> None:
    pictures = noise(200, 8, 8, 1)
    changed = FEATURES[name](pictures, 0, 0)
    kept = (changed == pictures).all(dim=(1, 2, 3)).sum().item()
    assert 70 < kept < 130


def test_the_two_flips_are_independent() -> None:
    signs = Augmentation(flip=True, vertical_flip=True).draw_matrices(800, 8, 8, 0, 0)
    kinds = signs[:, [0, 1], [0, 1]].sign().unique(dim=0, return_counts=True)[1]
    assert len(kinds) == 4
    assert kinds.min() > 150


@each_feature
def test_follows_seed_and_step_alone(augmentation: Augmentation) -> None:
    pictures = noise(16, 16, 16, 3)
    before = pictures.clone()
    torch.manual_seed(1)
    first = augmentation(pictures, 0, 5)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(first, augmentation(pictures, 0, 5))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, pictures)
    assert not torch.equal(first, augmentation(pictures, 0, 6))
    assert not torch.equal(first, augmentation(pictures, 1, 5))


@each_feature
@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_range(augmentation: Augmentation, channels: int) -> None:
    pictures = noise(64, 16, 16, channels) // 128 * 255
    changed = augmentation(pictures, 0, 0)
    assert changed.shape == pictures.shape
    gathers = augmentation in [FEATURES[name] for name in ("crop", "flip", "vertical_flip")]
    assert changed.dtype == (torch.uint8 if gathers else torch.float32)
    assert 0 <= changed.min() < 64
    assert 192 < changed.max() <= 255


@each_feature
def test_float_pictures_stay_untouched(augmentation: Augmentation) -> None:
    pictures = noise(8, 16, 16, 3).float()
    before = pictures.clone()
    changed = augmentation(pictures, 0, 0)
    assert torch.equal(before, pictures)
    assert torch.equal(changed, augmentation(before.byte(), 0, 0).float())


@each_feature
def test_nothing_depends_on_values_on_the_device(augmentation: Augmentation) -> None:
    """The meta device has no values: asking for one, as a wait for a GPU does, is an error."""
    pictures = torch.empty(8, 16, 12, 3, dtype=torch.uint8, device="meta")
    changed = augmentation(pictures, 0, 0)
    assert changed.device.type == "meta"
    assert changed.shape == pictures.shape


def test_a_feature_leaves_the_draws_of_the_others() -> None:
    pictures = noise(64, 16, 16, 3)
    moved = Augmentation(2, True)(pictures, 0, 3)
    with_vertical = Augmentation(2, True, vertical_flip=True)(pictures, 0, 3)
    upside_down = (moved != with_vertical).any(dim=(1, 2, 3))
    assert torch.equal(moved.flip(1)[upside_down], with_vertical[upside_down])
    coloured = augment.adjust_color(moved, augment.draw_factors(64, 0.3, 0, 3))
    assert torch.equal(Augmentation(2, True, color=0.3)(pictures, 0, 3), coloured)
    rectangles = augment.draw_rectangles(64, 16, 16, 0.5, 0, 3)
    erased = augment.fill_rectangles(coloured, rectangles)
    assert torch.equal(Augmentation(2, True, color=0.3, erase=0.5)(pictures, 0, 3), erased)
    alone = Augmentation(scale=0.5).draw_matrices(64, 16, 16, 0, 3)
    turned = Augmentation(scale=0.5, rotation=20.0).draw_matrices(64, 16, 16, 0, 3)
    assert torch.equal(alone[:, :, 2], turned[:, :, 2])
    areas = [torch.linalg.det(drawn[:, :, :2]) for drawn in (alone, turned)]
    assert torch.allclose(areas[0], areas[1], atol=1e-5)
    shifted = Augmentation(2, True).draw_matrices(64, 16, 16, 0, 3)
    mirrored = Augmentation(flip=True).draw_matrices(64, 16, 16, 0, 3)
    assert torch.equal(shifted[:, :, :2], mirrored[:, :, :2])


class Recording(dict[str, object]):
    """Params that note which keys were read."""

    def __init__(self, values: Mapping[str, object]):
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return super().__getitem__(key)


def test_from_params_reads_every_key() -> None:
    values = {
        "augment_crop": 3,
        "augment_flip": True,
        "augment_vertical_flip": True,
        "augment_scale": 0.5,
        "augment_rotation": 10.0,
        "augment_color": 0.2,
        "augment_erase": 0.1,
    }
    params = Recording(values)
    assert Augmentation.from_params(params) == Augmentation(
        3, True, vertical_flip=True, scale=0.5, rotation=10.0, color=0.2, erase=0.1
    )
    assert params.read == set(values)
    params = Recording({"mixup": 0.2, "cutmix": 1.0})
    assert Mix.from_params(params, 7) == Mix(mixup=0.2, cutmix=1.0, classes=7)
    assert params.read == {"mixup", "cutmix"}


def matrices(
    count: int,
    size: tuple[float, float] = (1, 1),
    centre: tuple[float, float] = (0, 0),
    mirrored: tuple[bool, bool] = (False, False),
    angle: float = 0,
    aspect: float = 1,
) -> torch.Tensor:
    """The same matrix for each of `count` samples; pairs are (vertical, horizontal)."""

    def pair(values: tuple[float, float]) -> torch.Tensor:
        return torch.tensor(values).double()[:, None].expand(2, count)

    degrees = torch.full((count,), float(angle)).double()
    return geometry.affine_matrices(
        pair(size), pair(centre), pair(mirrored).bool(), degrees, aspect
    )


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first.float(), second.float(), atol=0.02)


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_rotation_by_quarters(quarters: int) -> None:
    pictures = noise(4, 16, 16, 3)
    turned = geometry.resample(pictures, matrices(4, angle=90 * quarters))
    assert close(turned, pictures.rot90(quarters, dims=(1, 2)))


def test_rotation_keeps_angles_in_a_picture_that_is_not_square() -> None:
    pictures = noise(4, 16, 24, 1)
    turned = geometry.resample(pictures, matrices(4, angle=90, aspect=16 / 24))
    assert close(turned[:, :, 4:20], pictures[:, :, 4:20].rot90(1, dims=(1, 2)))


def test_rotation_matches_torchvision() -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import rotate

    pictures = smooth(4, 32, 32)
    turned = geometry.resample(pictures, matrices(4, angle=25))
    expected = rotate(
        pictures.permute(0, 3, 1, 2), 25, interpolation=InterpolationMode.BILINEAR
    ).permute(0, 2, 3, 1)
    middle = slice(8, 24)  # torchvision fills the corners with black
    assert close(turned[:, middle, middle], expected[:, middle, middle])


def test_mirrors() -> None:
    pictures = noise(4, 16, 12, 3)
    for mirrored, dims in (((False, True), (2,)), ((True, False), (1,)), ((True, True), (1, 2))):
        changed = geometry.resample(pictures, matrices(4, mirrored=mirrored, aspect=16 / 12))
        assert close(changed, pictures.flip(dims))


def test_a_resized_crop_is_crop_and_resize() -> None:
    pictures = smooth(4, 32, 32, 3)
    top, left, height, width = 4, 10, 16, 20
    centre = (2 * top + height - 32) / 32, (2 * left + width - 32) / 32
    changed = geometry.resample(pictures, matrices(4, (height / 32, width / 32), centre))
    box = pictures[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    expected = functional.interpolate(box, (32, 32), mode="bilinear", align_corners=False)
    inner = slice(1, -1)  # at its edge the resized box knows nothing of what lies beside it
    assert close(changed[:, inner, inner], expected.permute(0, 2, 3, 1)[:, inner, inner])


def test_resampling_is_that_of_affine_grid_with_edges_repeated() -> None:
    pictures = noise(8, 16, 20, 3)
    drawn = EVERYTHING.draw_matrices(8, 16, 20, 0, 0)
    grid = functional.affine_grid(drawn, [8, 3, 16, 20], align_corners=False)
    expected = functional.grid_sample(
        pictures.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False
    )
    assert close(geometry.resample(pictures, drawn), expected.permute(0, 2, 3, 1))


def test_crop_and_flips_are_the_same_by_resampling() -> None:
    pictures = noise(64, 16, 12, 3)
    augmentation = Augmentation(3, True, vertical_flip=True)
    resampled = geometry.resample(pictures, augmentation.draw_matrices(64, 16, 12, 0, 7))
    assert close(resampled, augmentation(pictures, 0, 7))


@pytest.mark.parametrize("sides", [(32, 32), (20, 30)])
def test_boxes_are_those_of_random_resized_crop(sides: tuple[int, int]) -> None:
    from torchvision.transforms import RandomResizedCrop

    height, width = sides
    size, centre = geometry.draw_boxes(4000, height, width, 0.3, 0, 0)
    assert (centre.abs() + size <= 1 + 1e-9).all()
    area, ratio = size[0] * size[1], size[1] * width / (size[0] * height)
    whole = (size == 1).all(0)
    assert 0.3 <= area.min() < 0.31
    assert 3 / 4 - 1e-9 <= ratio[~whole].min() < 0.76
    assert 1.32 < ratio[~whole].max() <= 4 / 3 + 1e-9
    assert (centre[:, ~whole] / (1 - size[:, ~whole])).abs().max() > 0.99
    torch.manual_seed(0)
    empty = torch.empty(1, height, width)
    boxes = [RandomResizedCrop.get_params(empty, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(1000)]
    mean = np.mean([box[2] * box[3] / (height * width) for box in boxes])
    assert area.mean().item() == pytest.approx(mean, abs=0.02)


def test_angles_fill_the_range() -> None:
    drawn = Augmentation(rotation=40.0).draw_matrices(2000, 16, 16, 0, 0)
    angles = torch.rad2deg(torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert -40 <= angles.min() < -39
    assert 39 < angles.max() <= 40.001
    assert abs(angles.mean().item()) < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_torchvisions(channels: int) -> None:
    from torchvision.transforms.v2 import functional as torchvision

    pictures = smooth(16, 16, 16, channels)
    factors = augment.draw_factors(16, 0.8, 0, 0)
    changed = augment.adjust_color(pictures, factors)
    for picture, after, (brightness, contrast, saturation) in zip(
        pictures, changed, factors.T.tolist(), strict=True
    ):
        expected = torchvision.adjust_brightness(picture.permute(2, 0, 1) / 255, brightness)
        expected = torchvision.adjust_contrast(expected, contrast)
        expected = (
            torchvision.adjust_saturation(expected, saturation) if channels == 3 else expected
        )
        assert close(after, expected.permute(1, 2, 0) * 255)


def test_colour_factors_fill_the_range() -> None:
    factors = augment.draw_factors(2000, 0.3, 0, 0)
    assert factors.dtype == torch.float32
    assert (factors.amin(1) < 0.71).all()
    assert (factors.amax(1) > 1.29).all()
    assert factors.min() >= 0.7
    assert factors.max() <= 1.3001
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.1


def test_rectangles_have_the_asked_area_and_frequency() -> None:
    side = 64
    top, bottom, left, right = augment.draw_rectangles(4000, side, side, 0.3, 0, 0)
    height, width = bottom - top, right - left
    area, chosen = height * width / side**2, height > 0
    assert torch.equal(chosen, width > 0)
    assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert 0.017 < area[chosen].min() < 0.03  # whole pixels: a bit below 2 %
    assert 0.32 < area[chosen].max() < 0.34
    assert area[chosen].mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.02)
    ratio = height[chosen] / width[chosen]
    assert 0.25 < ratio.min() < 0.4
    assert 2.6 < ratio.max() < 4
    for start, end in ((top, bottom), (left, right)):
        assert start.min() == 0
        assert end.max() == side


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_erasing_never_and_always(probability: float) -> None:
    top, bottom, _, _ = augment.draw_rectangles(500, 32, 32, probability, 0, 0)
    assert (bottom > top).float().mean() == probability


def test_erased_is_the_rectangle_in_the_mean_colour() -> None:
    pictures = noise(50, 16, 12, 3)
    rectangles = augment.draw_rectangles(50, 16, 12, 0.8, 0, 0)
    changed = augment.fill_rectangles(pictures, rectangles)
    erased = 0
    for picture, after, (top, bottom, left, right) in zip(
        pictures.float(), changed, rectangles.T.tolist(), strict=True
    ):
        expected = picture.clone()
        expected[top:bottom, left:right] = picture.mean(dim=(0, 1))
        assert torch.allclose(after, expected, atol=1e-3)
        erased += not torch.equal(after, picture)
    assert 30 < erased < 50


MIXES = {"mixup": Mix(0.4, 0, 64), "cutmix": Mix(0, 1.0, 64), "both": Mix(0.4, 1.0, 64)}
each_mix = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def numbered(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures that hold their own number, which is their class too."""
    labels = torch.arange(count)
    return labels.byte()[:, None, None, None].expand(-1, 16, 12, 3).contiguous(), labels


def test_no_mix_changes_nothing() -> None:
    pictures, labels = numbered()
    same, targets = Mix(0, 0, 64)(pictures, labels, 0, 0)
    assert same is pictures
    assert targets is labels


@each_mix
def test_targets_are_the_shares_of_the_pictures(mix: Mix) -> None:
    pictures, labels = numbered()
    mixed, targets = mix(pictures, labels, 0, 0)
    assert mixed.shape == pictures.shape
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
    pictures = noise(64, 8, 8, 1)
    mixed, targets = MIXES["mixup"](pictures, torch.arange(64), 0, 0)
    expected = torch.einsum("st,thwc->shwc", targets, pictures.float())
    assert torch.allclose(mixed, expected, atol=1e-3)
    assert len({round(share, 5) for share in targets.diag().tolist()}) > 50


def test_cutmix_pastes_a_rectangle() -> None:
    pictures, labels = numbered()
    mixed, targets = MIXES["cutmix"](pictures, labels, 0, 0)
    sizes = set()
    for number, (picture, target) in enumerate(zip(mixed[..., 0], targets, strict=True)):
        pasted = picture != number
        assert target[number].item() == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)
        if pasted.any():
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert rows * columns == pasted.sum()
            assert len(picture[pasted].unique()) == 1
            sizes.add((int(rows), int(columns)))
    assert len(sizes) > 20


def test_partners_are_a_random_permutation() -> None:
    pictures, labels = numbered()
    partners = []
    for step in range(2):
        _, targets = MIXES["mixup"](pictures, labels, 0, step)
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
    pictures, labels = noise(32, 16, 16, 1), torch.arange(32)
    before = pictures.clone()
    torch.manual_seed(1)
    np.random.seed(1)
    first = mix(pictures, labels, 0, 5)
    torch.manual_seed(9)
    np.random.seed(9)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    again = mix(pictures, labels, 0, 5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(before, pictures)
    assert torch.equal(labels, torch.arange(32))
    for seed, step in ((0, 6), (1, 5)):
        assert not torch.equal(first[0], mix(pictures, labels, seed, step)[0])


@each_mix
def test_mix_depends_on_no_values_on_the_device(mix: Mix) -> None:
    pictures = torch.empty(8, 16, 16, 3, dtype=torch.uint8, device="meta")
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    mixed, targets = mix(pictures, labels, 0, 0)
    assert mixed.shape == pictures.shape
    assert targets.shape == (8, 64)
    assert targets.device.type == "meta"


def test_one_sample_meets_itself() -> None:
    pictures = noise(1, 8, 8, 1)
    mixed, targets = Mix(1.0, 1.0, 3)(pictures, torch.tensor([2]), 0, 0)
    assert torch.allclose(mixed, pictures.float(), atol=1e-3)
    assert math.isclose(targets[0, 2].item(), 1, abs_tol=1e-6)
