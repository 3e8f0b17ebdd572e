"""Augmentation, mixup and CutMix: per sample, functions of (seed, step), with right geometry."""

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


def random_rows(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(0, "noise", 0), dtype=torch.uint8)


def smooth(count: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """Images whose values a resampling can only get right at the right place."""
    small = random_rows(count, channels, 4, 4).float()
    large = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return large.clamp(0, 255).permute(0, 2, 3, 1).contiguous()


def windows(image: np.ndarray, crop: int, flip: bool, vertical_flip: bool) -> set[bytes]:
    """All that padding by `crop` (edges repeated), cropping and flipping can make of an image."""
    height, width, _ = image.shape
    padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)), mode="edge")
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
    images = random_rows(40, 16, 12, 3)
    changed = Augmentation(crop, flip, vertical_flip=vertical_flip)(images, seed=0, step=0)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    for before, after in zip(images.numpy(), changed.numpy(), strict=True):
        assert after.tobytes() in windows(before, crop, flip, vertical_flip)


@pytest.mark.parametrize(("crop", "flip"), [(0, True), (2, False), (3, True)])
def test_crop_and_flip_keep_their_draws(crop: int, flip: bool) -> None:
    """Committed results hang on these bits: one purpose, shifts of rows and columns, then flips."""
    images = random_rows(32, 16, 16, 1)
    draws = generator(4, "augment", 9)
    shift = torch.randint(-crop, crop + 1, (2, 32, 1), generator=draws)
    mirrored = torch.randint(0, 2, (32, 1), generator=draws)[:, 0].tolist()
    expected = []
    for image, (down,), (across,), mirror in zip(images, *shift.tolist(), mirrored, strict=True):
        rows = (torch.arange(16) + down).clamp(0, 15)
        columns = (torch.arange(16) + across).clamp(0, 15)
        moved = image[rows][:, columns]
        expected.append(moved.flip(1) if mirror and flip else moved)
    assert torch.equal(Augmentation(crop, flip)(images, 4, 9), torch.stack(expected))


def test_no_augmentation_changes_nothing() -> None:
    images = random_rows(8, 16, 16, 1)
    assert Augmentation()(images, 0, 0) is images


@each_feature
def test_samples_of_a_batch_differ(augmentation: Augmentation) -> None:
    same = random_rows(1, 20, 20, 3).expand(200, -1, -1, -1)
    kinds = {row.numpy().tobytes() for row in augmentation(same, 0, 0).contiguous()}
    flips_alone = augmentation in (FEATURES["flip"], FEATURES["vertical_flip"])
    expected = 2 if flips_alone else 20 if augmentation == FEATURES["crop"] else 120
    assert len(kinds) >= expected


def test_the_two_flips_are_independent() -> None:
    signs = Augmentation(flip=True, vertical_flip=True).draw_matrices(800, 8, 8, 0, 0)
    kinds = signs[:, [0, 1], [0, 1]].sign().unique(dim=0, return_counts=True)[1]
    assert len(kinds) == 4
    assert kinds.min() > 150


@each_feature
def test_follows_seed_and_step_alone(augmentation: Augmentation) -> None:
    images = random_rows(16, 16, 16, 3)
    before = images.clone()
    torch.manual_seed(1)
    first = augmentation(images, 0, 5)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(first, augmentation(images, 0, 5))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, images)
    assert not torch.equal(first, augmentation(images, 0, 6))
    assert not torch.equal(first, augmentation(images, 1, 5))


@each_feature
@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_range(augmentation: Augmentation, channels: int) -> None:
    images = random_rows(64, 16, 16, channels) // 128 * 255
    changed = augmentation(images, 0, 0)
    assert changed.shape == images.shape
    gathers = augmentation in [FEATURES[name] for name in ("crop", "flip", "vertical_flip")]
    assert changed.dtype == (torch.uint8 if gathers else torch.float32)
    assert 0 <= changed.min() < 64
    assert 192 < changed.max() <= 255


@each_feature
def test_float_images_stay_untouched(augmentation: Augmentation) -> None:
    images = random_rows(8, 16, 16, 3).float()
    before = images.clone()
    changed = augmentation(images, 0, 0)
    assert torch.equal(before, images)
    assert torch.equal(changed, augmentation(before.byte(), 0, 0).float())


@each_feature
def test_nothing_depends_on_values_on_the_device(augmentation: Augmentation) -> None:
    """The meta device has no values: asking for one, as a wait for a GPU does, is an error."""
    images = torch.empty(8, 16, 12, 3, dtype=torch.uint8, device="meta")
    changed = augmentation(images, 0, 0)
    assert changed.device.type == "meta"
    assert changed.shape == images.shape


def test_a_feature_leaves_the_draws_of_the_others() -> None:
    images = random_rows(64, 16, 16, 3)
    moved = Augmentation(2, True)(images, 0, 3)
    with_vertical = Augmentation(2, True, vertical_flip=True)(images, 0, 3)
    upside_down = (moved != with_vertical).any(dim=(1, 2, 3))
    assert torch.equal(moved.flip(1)[upside_down], with_vertical[upside_down])
    coloured = augment.adjust_color(moved, augment.draw_factors(64, 0.3, 0, 3))
    assert torch.equal(Augmentation(2, True, color=0.3)(images, 0, 3), coloured)
    rectangles = augment.draw_rectangles(64, 16, 16, 0.5, 0, 3)
    erased = augment.fill_rectangles(coloured, rectangles)
    assert torch.equal(Augmentation(2, True, color=0.3, erase=0.5)(images, 0, 3), erased)
    alone = Augmentation(scale=0.5).draw_matrices(64, 16, 16, 0, 3)
    turned = Augmentation(scale=0.5, rotation=20.0).draw_matrices(64, 16, 16, 0, 3)
    assert torch.equal(alone[:, :, 2], turned[:, :, 2])
    areas = [torch.linalg.det(drawn[:, :, :2]) for drawn in (alone, turned)]
    assert torch.allclose(areas[0], areas[1], atol=1e-5)
    shifted = Augmentation(2, True).draw_matrices(64, 16, 16, 0, 3)
    mirrored = Augmentation(flip=True).draw_matrices(64, 16, 16, 0, 3)
    assert torch.equal(shifted[:, :, :2], mirrored[:, :, :2])


def test_from_params_reads_every_key() -> None:
    """The texts stand for values of any type."""
    params = {f"augment_{name}": name for name in FEATURES}
    assert vars(Augmentation.from_params(params)) == {name: name for name in FEATURES}
    mix = Mix.from_params({"mixup": "of mixup", "cutmix": "of cutmix"}, 7)
    assert vars(mix) == {"mixup": "of mixup", "cutmix": "of cutmix", "classes": 7}


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
    images = random_rows(4, 16, 16, 3)
    turned = geometry.resample(images, matrices(4, angle=90 * quarters))
    assert close(turned, images.rot90(quarters, dims=(1, 2)))


def test_rotation_keeps_angles_in_an_image_that_is_not_square() -> None:
    images = random_rows(4, 16, 24, 1)
    turned = geometry.resample(images, matrices(4, angle=90, aspect=16 / 24))
    assert close(turned[:, :, 4:20], images[:, :, 4:20].rot90(1, dims=(1, 2)))


def test_rotation_matches_torchvision() -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import rotate

    images = smooth(4, 32, 32)
    turned = geometry.resample(images, matrices(4, angle=25))
    expected = rotate(images.permute(0, 3, 1, 2), 25, InterpolationMode.BILINEAR)
    middle = slice(8, 24)  # torchvision fills the corners with black
    assert close(turned[:, middle, middle], expected.permute(0, 2, 3, 1)[:, middle, middle])


def test_a_resized_crop_is_crop_and_resize() -> None:
    images = smooth(4, 32, 32, 3)
    top, left, height, width = 4, 10, 16, 20
    centre = (2 * top + height - 32) / 32, (2 * left + width - 32) / 32
    changed = geometry.resample(images, matrices(4, (height / 32, width / 32), centre))
    box = images[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    expected = functional.interpolate(box, (32, 32), mode="bilinear", align_corners=False)
    inner = slice(1, -1)  # at its edge the resized box knows nothing of what lies beside it
    assert close(changed[:, inner, inner], expected.permute(0, 2, 3, 1)[:, inner, inner])


def test_resampling_is_that_of_affine_grid_with_edges_repeated() -> None:
    images = random_rows(8, 16, 20, 3)
    drawn = EVERYTHING.draw_matrices(8, 16, 20, 0, 0)
    grid = functional.affine_grid(drawn, [8, 3, 16, 20], align_corners=False)
    expected = functional.grid_sample(
        images.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False
    )
    assert close(geometry.resample(images, drawn), expected.permute(0, 2, 3, 1))


def test_crop_and_flips_are_the_same_by_resampling() -> None:
    images = random_rows(64, 16, 12, 3)
    augmentation = Augmentation(3, True, vertical_flip=True)
    resampled = geometry.resample(images, augmentation.draw_matrices(64, 16, 12, 0, 7))
    assert close(resampled, augmentation(images, 0, 7))


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

    images = smooth(16, 16, 16, channels)
    factors = augment.draw_factors(16, 0.8, 0, 0)
    changed = augment.adjust_color(images, factors)
    for image, after, (brightness, contrast, saturation) in zip(
        images, changed, factors.T.tolist(), strict=True
    ):
        expected = torchvision.adjust_brightness(image.permute(2, 0, 1) / 255, brightness)
        expected = torchvision.adjust_contrast(expected, contrast)
        if channels == 3:
            expected = torchvision.adjust_saturation(expected, saturation)
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
    images = random_rows(50, 16, 12, 3)
    rectangles = augment.draw_rectangles(50, 16, 12, 0.8, 0, 0)
    changed = augment.fill_rectangles(images, rectangles)
    erased = 0
    for image, after, (top, bottom, left, right) in zip(
        images.float(), changed, rectangles.T.tolist(), strict=True
    ):
        expected = image.clone()
        expected[top:bottom, left:right] = image.mean(dim=(0, 1))
        assert torch.allclose(after, expected, atol=1e-3)
        erased += not torch.equal(after, image)
    assert 30 < erased < 50
