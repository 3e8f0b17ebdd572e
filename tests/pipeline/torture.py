"""Kill the pipeline again and again: `python -m tests.pipeline.torture` (make torture).

Each round takes other pictures and another seed through all stages twice: undisturbed in one
repository, and under kills, each followed by a new start, in another. Then dvc.lock must be the
same, and MLflow must hold one run with every point once. A kill comes at a random moment of a
random stage; the first of a round in each stage before evaluate in turn. The start after a kill in
evaluate is left alone: nothing before it is left to kill.
Kinds: `stage` (kill -9 of the stage), `torn` (dies between writing a checkpoint and renaming it),
`dvc` (kill -9 of DVC), `term` and `interrupt` (SIGTERM and SIGINT to the whole group, as a system
or a terminal sends them). Every third round runs as `dvc exp run --temp`.
A dvc.lock that DVC's death cut short is brought back as the README says, and counted.
"""

import argparse
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from dvc.dvcfile import Lockfile
from dvc.utils.strictyaml import YAMLValidationError

from src.plumbing.dvc_files import STAGES
from src.plumbing.process import left_after
from tests.conftest import set_params
from tests.pipeline.clone import environment, fingerprint_from_lock, lock, lock_of, new_clone, run

EPOCHS = 14
# All that has a state: averages, schedule with warm-up, accumulation, mixing; a checkpoint a step.
SETTINGS: Mapping[str, object] = {
    "epochs": EPOCHS, "ema": 0.9, "schedule": "cosine", "warmup": 2, "accumulate": 2,
    "batch_size": 8, "mixup": 0.2, "checkpoint_minutes": 1e-9, "progress": "auto",
    "on_fail": "report",
}  # fmt: skip
PICTURES = 120  # enough for each class in each split, whatever the round adds
TORN_AT = (2, 40)  # the steps between which a `torn` kill comes
MOST_TOO_LATE = 4  # rounds one after the other without a kill
PER_ROUND = 8  # kills at most, so that a seed comes to its end
WEIGHTS = (1, 1, 2, 7, 1)  # how often each is the one to be killed in: training is what resumes
KINDS = ("stage", "torn", "dvc", "term", "interrupt")
STAGE = re.compile(r"^Running stage '(.+)':", re.M)
RESUMED = re.compile(r"train: goes on after epoch (\d+), step (\d+)")
# Python runs this at its start: it counts checkpoints and dies at the n-th, before its rename.
WATCH = """
import os, signal
replace, seen, at = os.replace, 0, int(os.environ["TORTURE_TEAR"])
def watched(source, target, **more):
    global seen
    if "/checkpoint-" in str(target):
        seen += 1
        with open(os.environ["TORTURE_STEPS"], "w") as file:
            file.write(str(seen))
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target, **more)
os.replace = watched
"""


@dataclass
class Death:
    """One kill: `steps` of the optimizer since that start; the next went on at `resumed`."""

    kind: str
    stage: str
    steps: int
    resumed: tuple[int, int] | None = None


class Torture:
    """Two repositories with the same project, one of which is disturbed."""

    def __init__(self, folder: Path, draws: random.Random):
        self.draws = draws
        self.calm, self.disturbed = folder / "calm", folder / "disturbed"
        for clone in (self.calm, self.disturbed):
            new_clone(clone, **SETTINGS)
        (folder / "watch").mkdir()
        (folder / "watch/sitecustomize.py").write_text(WATCH)
        self.steps = folder / "watch/steps"
        self.cut_locks = 0  # how often DVC died while it wrote dvc.lock
        self.environment = {
            **environment(), "PYTHONPATH": str(folder / "watch"), "TORTURE_TEAR": "0",
            "TORTURE_STEPS": str(self.steps),
        }  # fmt: skip

    def round(self, seed: int, kinds: list[str], temporary: bool = False) -> list[Death]:
        """Train with `seed` in both; returns the kills. AssertionError if results differ."""
        for clone in (self.calm, self.disturbed):
            set_params(clone, seed=seed, synthetic_pictures=PICTURES + seed)
        durations = self.undisturbed()
        command = ["dvc", "exp", "run", "--temp", "--name", f"seed-{seed}"]
        command = command if temporary else ["dvc", "repro"]
        deaths: list[Death] = []
        death: Death | None = None
        target = seed % (len(STAGES) - 1)
        for kind in kinds:
            printed, death = self.kill(command, kind, target, durations)
            [target] = self.draws.choices(range(len(STAGES)), WEIGHTS)
            self._note_resume(deaths, printed)
            if death is None:
                break
            deaths.append(death)
            if death.stage == STAGES[-1]:
                break
        if death:
            self._restore_lock()
            self._note_resume(deaths, run(self.disturbed, *command))
        at_end = lock_of(self.disturbed, f"seed-{seed}") if temporary else lock(self.disturbed)
        assert at_end == lock(self.calm), f"seed {seed}: dvc.lock differs"
        self._check_points(str(fingerprint_from_lock(lock(self.calm), "train")))
        return deaths

    def undisturbed(self) -> dict[str, float]:
        """Run the calm one; how long each of its stages took, in seconds."""
        durations: dict[str, float] = {}
        dvc = subprocess.Popen(
            ["dvc", "repro"], cwd=self.calm, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert dvc.stdout is not None
        stage, begin = "", time.monotonic()
        for line in dvc.stdout:
            if found := STAGE.match(line):
                durations[stage], begin = time.monotonic() - begin, time.monotonic()
                stage = found[1]
        assert dvc.wait() == 0
        durations[stage] = time.monotonic() - begin
        return durations

    def kill(
        self, command: list[str], kind: str, target: int, durations: dict[str, float]
    ) -> tuple[str, Death | None]:
        """Kill `command` in stage `target` or later; what it printed, the death (None: late)."""
        self._restore_lock()
        more = {"TORTURE_TEAR": str(self.draws.randint(*TORN_AT))} if kind == "torn" else {}
        self.steps.write_text("0")
        part = self.draws.random()
        with tempfile.NamedTemporaryFile() as output:
            dvc = subprocess.Popen(
                command, cwd=self.disturbed, env={**self.environment, **more},
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            moment, resumed = float("inf"), False
            while dvc.poll() is None and time.monotonic() < moment:
                printed = Path(output.name).read_text()
                stages = STAGE.findall(printed)
                if kind != "torn" and stages and STAGES.index(stages[-1]) >= target:
                    if moment == float("inf"):
                        moment = time.monotonic() + part * durations.get(stages[-1], 1.0)
                    if not resumed and (found := RESUMED.search(printed)):
                        resumed, left = True, max(0.1, 1 - int(found[1]) / EPOCHS)
                        moment = time.monotonic() + part * left * durations["train"]
                time.sleep(0.02)
            if dvc.poll() is None:
                _send(kind, dvc)
            code = dvc.wait(300)
            _wait_for_the_end(self.disturbed)
            printed = Path(output.name).read_text()
        stages = STAGE.findall(printed)
        if code == 0:
            return printed, None
        steps = int(self.steps.read_text() or 0)
        return printed, Death(kind, stages[-1] if stages else "none", steps)

    def _restore_lock(self) -> None:
        path = self.disturbed / "dvc.lock"
        if not path.exists():
            return
        try:
            Lockfile.validate(yaml.safe_load(path.read_text()))
        except (yaml.YAMLError, YAMLValidationError):
            path.unlink()  # `git checkout dvc.lock`: none is committed here
            self.cut_locks += 1

    def _note_resume(self, deaths: list[Death], printed: str) -> None:
        if deaths and (found := RESUMED.search(printed)):
            deaths[-1].resumed = int(found[1]), int(found[2])

    def _check_points(self, fingerprint: str) -> None:
        """The last run is as the undisturbed one; DVC was killed before it recorded any others."""
        wanted, found = (_points(clone, fingerprint) for clone in (self.calm, self.disturbed))
        *earlier, last = found
        assert [last] == wanted, "points differ, are doubled, or are missing"
        assert all(status == "FINISHED" for status, _ in earlier), earlier


def _send(kind: str, dvc: "subprocess.Popen[bytes]") -> None:
    if kind in ("term", "interrupt"):
        os.killpg(dvc.pid, signal.SIGTERM if kind == "term" else signal.SIGINT)
    elif kind == "dvc":
        dvc.kill()
    else:
        for child in psutil.Process(dvc.pid).children(recursive=True):
            with suppress(psutil.Error):  # it has just ended
                if "src." in " ".join(child.cmdline()):
                    child.kill()
                    return
        dvc.kill()  # between two stages


def _wait_for_the_end(folder: Path) -> None:
    """No stage may outlive its `dvc` for long."""
    stages = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(process.info["cwd"]).startswith(str(folder))
        and "src." in " ".join(process.info["cmdline"] or [])
    ]
    left = left_after(stages, 60)
    assert not left, f"{left} go on without their dvc"


def _points(clone: Path, fingerprint: str) -> list[tuple[str, list[tuple]]]:
    """(status, points of training and test) of each run with this fingerprint."""
    with sqlite3.connect(clone / "mlflow.db") as store:
        runs = store.execute(
            "SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'fingerprint' AND t.value = ? ORDER BY r.start_time",
            (fingerprint,),
        ).fetchall()
        return [
            (status, store.execute(
                "SELECT key, step, value FROM metrics WHERE run_uuid = ? "
                "AND key NOT LIKE 'system/%' ORDER BY key, step, timestamp", (run_id,)
            ).fetchall())
            for run_id, status in runs
        ]  # fmt: skip


def report(deaths: list[Death]) -> str:
    """Each kill in a line, and how many trainings went on where."""
    lines = [
        f"  {death.kind:<9} in {death.stage:<13} after {death.steps:>2} steps, "
        + ("goes on after epoch {}, step {}".format(*death.resumed) if death.resumed else "-")
        for death in deaths
    ]
    resumed = [death for death in deaths if death.resumed]
    inside = sum(1 for death in resumed if death.resumed and death.resumed[1] > 0)
    torn = sum(1 for death in resumed if death.kind == "torn")
    total = (
        f"{len(deaths)} kills; {len(resumed)} trainings went on, {inside} within an epoch, "
        f"{torn} after a torn checkpoint"
    )
    return "\n".join([*lines, total])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pipeline.torture")
    defaults = {"stage": 45, "torn": 8, "dvc": 10, "term": 10, "interrupt": 10}
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=defaults[kind])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = vars(parser.parse_args())
    draws = random.Random(given["seed"])
    wanted = [kind for kind in KINDS for _ in range(given[kind])]
    draws.shuffle(wanted)
    # In the background of a shell it would ignore Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    deaths: list[Death] = []
    too_late = 0
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder).resolve(), draws)
        for seed in itertools.count():
            left = list(wanted)
            for death in deaths:
                left.remove(death.kind)
            if not left:
                break
            new = torture.round(seed, left[:PER_ROUND], temporary=seed % 3 == 2)
            deaths += new
            too_late = 0 if new else too_late + 1
            assert too_late < MOST_TOO_LATE, f"a kill of kind {left[0]} never comes in time"
            print(f"round {seed}: same bits\n{report(new)}", flush=True)
    print(report(deaths))
    print(f"dvc.lock was cut {torture.cut_locks} times")


if __name__ == "__main__":
    main()
