"""Graphs of earlier steps that stay in memory, counted."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from torch import Tensor

from src.checks.context import Context
from src.checks.reading import graph_of
from src.checks.report import Check, ok, warn

AGAIN = 24  # steps of the optimizer in the second count: a short window of losses has an end


@contextmanager
def graphs_counted() -> Iterator[Callable[[], int]]:
    """A function that counts the nodes of all graphs which tensors made meanwhile keep alive.

    What existed before is set aside, so that a count costs a few milliseconds."""
    gc.collect()
    gc.freeze()
    try:
        yield _nodes
    finally:
        gc.unfreeze()


def _nodes() -> int:
    roots = []
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            try:
                roots.append(thing.grad_fn)
            except RuntimeError:  # a view whose base was changed has none any more
                continue
    return len(graph_of(roots))


def _grows(counts: list[int]) -> bool:
    """Whether each step left more than the step before."""
    return len(counts) > 2 and all(b > a for a, b in pairwise(counts))


def check_graphs(ctx: Context, counts: list[int]) -> Check:
    """`counts` after each step of the optimizer; what grows is counted again over more steps,
    without what only waits for the garbage collector."""
    id, accumulate = "graphs", ctx.declared.accumulate
    if not _grows(counts):
        return ok(id, 0.0, 0.0, "no graph of an earlier step stays in memory")
    setup, counts = ctx.fresh(), []
    with graphs_counted() as count:
        for number in range(AGAIN * accumulate):
            ctx.step(setup, ctx.batch(number))
            if (number + 1) % accumulate == 0:
                gc.collect()
                counts.append(count())
    if not _grows(counts):
        return ok(id, 0.0, 0.0, "graphs of earlier steps are let go after some time")
    value = (counts[-1] - counts[0]) / (len(counts) - 1)
    text = f"each step leaves {value:.0f} nodes of its graph in memory"
    return warn(id, value, 0.0, text, "graph_kept")
