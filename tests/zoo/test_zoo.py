"""The battery on a slice of the zoo, a larger one in the slow group; `make zoo` runs all of it."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch

from src.checks.causes import CAUSES
from tests.zoo.known.catalogue import BASES, all_faults, all_harmless, everything_healthy
from tests.zoo.known.healthy import SPECS
from tests.zoo.known.rivals import dry_run, overfit_one_batch, torchtest_like
from tests.zoo.known.score import Result, cases, first_finding, run_case


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the score; and beside other work two threads on small nets wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Some that cost about two seconds each.
FAST = [
    "too_few_outputs",
    "labels_shifted_in_collate",
]
# Of the other kinds and bases.
SLOW = [
    "loss_softmax_over_batch",
    "buffers_not_saved",
    "average_not_saved",
    "augmented_before_split",
    "argmax_over_batch",
    "half_the_data_lost",
    "sum_over_batch_in_mixup",
    "mean_of_batch_means.two_classes",
    "losses_summed_as_tensors",
    "huge_initialisation",
    "head_group_forgotten",
    "log_softmax_before_bce.two_classes",
    "zero_grad_missing",
    "val_zoomed",
]
FAULTS = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
SLOW_FINE = [
    "pretrained",
    "body_frozen_declared",
    "warm_restarts",
    "one_hot_targets",
    "clip_at_one_and_zero_grad_last",
    "orthogonal_initialisation",
    "layer_shared",
    "test_efficientnet_gn",
    "test_vit3",
]
FINE = ["two_classes", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FINE)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str) -> None:
    result = run_case(name, with_rivals=False)
    assert result.detected, result.messages
    assert result.named, result.messages


@pytest.mark.slow(seconds=6)
def test_labels_that_are_one_item_off_stop_a_training_with_augmentation() -> None:
    """A part of the images has its own label by chance, so that a little signal is left."""
    result = run_case("labels_off_by_one_item", with_rivals=False)
    assert result.found["label_signal"] == "fail", result.messages
    assert result.causes[0] == "labels_shuffled"


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_passes(name: str) -> None:
    result = run_case(name, with_rivals=False)
    assert result.status == "pass", result.messages


def test_the_zoo_is_as_large_as_it_says() -> None:
    faults = [change for change in all_faults().values() if not change.subtle]
    assert len({change.plant for change in faults}) >= 80
    assert {change.base for change in faults} == set(BASES)
    assert len(all_harmless()) >= 10
    assert len(SPECS) >= 40
    assert len({spec.net for spec in SPECS}) >= 20
    assert len(everything_healthy()) == len(BASES) + len(all_harmless()) + len(SPECS)


def test_expected_causes_are_of_the_vocabulary() -> None:
    for name, change in all_faults().items():
        assert change.causes, name
        assert set(change.causes) <= set(CAUSES), name


@pytest.mark.parametrize("name", ["digits_resnet", "mixup_ema", "test_vit3", "balanced_sampler"])
def test_a_factory_gives_the_same_set_up_each_time(name: str) -> None:
    factory = cases()[name][1]
    losses = []
    for _ in range(2):
        setup = factory()
        torch.manual_seed(5)
        batches = iter(setup.train_loader)
        losses.append([float(setup.train_step(setup, next(batches))["loss"]) for _ in range(3)])
        assert all(
            getattr(setup, part.name) is not None or part.name == "scheduler"
            for part in fields(setup)
        )
    assert losses[0] == losses[1]


def test_two_set_ups_share_nothing_that_trains() -> None:
    first, second = BASES["mixup_ema"](), BASES["mixup_ema"]()
    start = [p.detach().clone() for p in second.model.parameters()]
    first.train_step(first, next(iter(first.train_loader)))
    assert all(torch.equal(a, b) for a, b in zip(start, second.model.parameters(), strict=True))


@pytest.mark.slow
def test_simpler_practices_do_what_they_say() -> None:
    """They are not made to look bad: each passes what is healthy and catches its kind."""
    for practice in (dry_run, overfit_one_batch, torchtest_like):
        assert practice(BASES["two_classes"]) is None
    assert dry_run(all_faults()["load_crashes"])
    assert "loss" in (overfit_one_batch(all_faults()["features_unused"]) or "")
    assert "stays" in (torchtest_like(all_faults()["optimizer_of_other_model"]) or "")
    assert overfit_one_batch(all_faults()["mean_of_batch_means.two_classes"]) is None


def test_the_first_finding_is_a_fail_that_follows_from_nothing() -> None:
    def check(id: str, status: str, consequence_of: str | None = None) -> dict:
        return {"id": id, "status": status, "consequence_of": consequence_of}

    checks = [check("a", "warn"), check("b", "fail", "c"), check("c", "fail"), check("d", "fail")]
    assert first_finding(checks) == checks[2]
    assert first_finding(checks[:2]) == checks[0]
    assert first_finding([check("a", "pass"), check("b", "inconclusive")]) is None


def test_a_cause_counts_among_the_first_two() -> None:
    def result(causes: list[str], status: str) -> Result:
        return Result("x", "fault", status, 1.0, causes, ["right"], {"check": status})

    assert result(["other", "right"], "fail").named
    assert not result(["other", "third", "right"], "fail").named
    assert not result(["right"], "inconclusive").named
