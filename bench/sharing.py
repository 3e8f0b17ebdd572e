"""What several trainings on the same cores do to each other: `python -m bench.sharing`.

Images per second of one training and of two at a time, with OpenMP's threads spinning while they
wait, as they do by default, and sleeping, as src/plumbing/process.py has them. Each is a process of
its own with the net and threads of params.yaml; the ways take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
WAYS = {"spinning": None, "sleeping": "PASSIVE"}  # what POLICY says
WARM_UP = 5  # steps


def images_per_second(seconds: float) -> float:
    """Of the project's training step on random images in this process, for so many seconds."""
    import itertools

    from bench.loop import images_in, training_for
    from src.data.batches import training_batches
    from src.plumbing import params
    from src.training.step import train_step

    given = params.load()
    with tempfile.TemporaryDirectory() as folder:
        data = images_in(Path(folder), 1024, int(str(given["prepare.size"])))
        learner, done, start = training_for(data, dict(given)).learner, 0, 0.0
        size = int(str(given["batch_size"]))
        batches = list(training_batches(data, 0, 0, size, learner.device))
        for number, batch in enumerate(itertools.cycle(batches)):
            if number == WARM_UP:
                start, done = time.monotonic(), 0
            train_step(learner, batch, number)
            done += size
            if number > WARM_UP and time.monotonic() - start > seconds:
                return done / (time.monotonic() - start)
    raise AssertionError("no batches")


def at_a_time(count: int, way: str, seconds: float) -> float:
    """Images per second of `count` processes together."""
    environment = {key: value for key, value in os.environ.items() if key != POLICY}
    if policy := WAYS[way]:
        environment[POLICY] = policy
    command = [sys.executable, "-m", "bench.sharing", "--one", str(seconds)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return sum(float(process.communicate()[0]) for process in running)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sharing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(images_per_second(given.one))
        return
    for count in (1, 2):
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                found[way].append(at_a_time(count, way, given.seconds))
        middle = {way: statistics.median(values) for way, values in found.items()}
        shown = ", ".join(f"{way} {value:.0f}" for way, value in middle.items())
        ratio = middle["sleeping"] / middle["spinning"]
        print(f"{count} at a time, images/s together: {shown}; ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
