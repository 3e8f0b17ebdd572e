"""The one place that seeds. Randomness is a function of (seed, purpose, step), never a state that
is carried along: a killed run goes on with the same bits, whatever the number of processes."""

import hashlib

import torch


def derive(seed: int, purpose: str, step: int = 0) -> int:
    """A 63-bit number for one purpose at one step; independent for every other one."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_initial_weights(seed: int) -> None:
    """Seed the CPU generator that initial weights are drawn from."""
    torch.default_generator.manual_seed(derive(seed, "weights"))


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed what the model draws in a forward pass (dropout), on the CPU and on `device`."""
    number = derive(seed, "dropout", step)
    torch.default_generator.manual_seed(number)  # 1 microsecond; torch.manual_seed takes 143
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def sample_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of `count` samples in an epoch: int64 permutation of shape (count,)."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def balanced_order(seed: int, epoch: int, labels: torch.Tensor) -> torch.Tensor:
    """N indices (int64) drawn from `labels` (int64, N) with replacement, each class as likely."""
    draws = generator(seed, "order", epoch)
    classes, counts = labels.unique(return_counts=True)
    starts = counts.cumsum(0) - counts
    drawn = torch.randint(len(classes), (len(labels),), generator=draws)
    within = torch.rand(len(labels), generator=draws, dtype=torch.float64) * counts[drawn]
    return labels.argsort(stable=True)[starts[drawn] + within.long()]


def generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """A CPU generator for one purpose at one step."""
    return torch.Generator().manual_seed(derive(seed, purpose, step))
