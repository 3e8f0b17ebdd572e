"""Kill the pipeline again and again: `python -m tests.torture` (make torture; the slow tests run a
small part).

Each round trains another seed twice: undisturbed in one repository, and in another one under kills
at random moments, each followed by `dvc repro`. In the end dvc.lock must be the same, and MLflow
must hold one run with every point once. Kinds of kills: `stage` (kill -9 of the stage's process),
`torn` (it dies between writing a checkpoint and renaming it), `dvc` (kill -9 of DVC), `term` and
`interrupt` (SIGTERM, SIGINT to the whole group, as a system or a terminal sends them).
"""

import argparse
import os
import random
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from src.pipeline import fingerprint_from_lock
from tests.conftest import set_params
from tests.pipeline_clone import commit, environment, lock, new_clone, run

# All that has a state: averages, schedule with warm-up, accumulation, mixing; a checkpoint a step.
SETTINGS = {
    "epochs": 5, "ema": 0.9, "schedule": "cosine", "warmup": 1, "accumulate": 2, "batch_size": 8,
    "mixup": 0.2, "checkpoint_minutes": 1e-9, "progress": "auto", "on_fail": "report",
}  # fmt: skip
KINDS = ("stage", "torn", "dvc", "term", "interrupt")
STAGE = re.compile(r"^Running stage '(.+)':", re.M)
RESUMED = re.compile(r"train: goes on after epoch (\d+), step (\d+)")
# Python runs this at its start. It lets the process die at the n-th checkpoint, before its rename.
TEAR = """
import os, signal
if at := int(os.environ.get("TORTURE_TEAR", "0")):
    replace, seen = os.replace, 0
    def torn(source, target, **more):
        global seen
        if str(target).endswith("checkpoint.pt"):
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, target, **more)
    os.replace = torn
"""


@dataclass
class Death:
    """One kill: its kind, the stage that ran, and where the next start went on (epoch, step)."""

    kind: str
    stage: str
    resumed: tuple[int, int] | None = None


class Torture:
    """Two repositories with the same project, one of which is disturbed."""

    def __init__(self, folder: Path, draws: random.Random, broken: bool = False):
        self.draws = draws
        self.calm, self.disturbed = folder / "calm", folder / "disturbed"
        for clone in (self.calm, self.disturbed):
            new_clone(clone, **SETTINGS)
            if broken:  # a resume that forgets a part of the state must be noticed
                path = clone / "src/training/loop.py"
                text = path.read_text()
                forgotten = '        setup.optimizer.load_state_dict(state["optimizer"])\n'
                assert forgotten in text
                path.write_text(text.replace(forgotten, ""))
                commit(clone, "broken")
        (folder / "tear").mkdir()
        (folder / "tear/sitecustomize.py").write_text(TEAR)
        self.environment = {**environment(), "PYTHONPATH": str(folder / "tear")}

    def round(self, seed: int, kinds: list[str]) -> list[Death]:
        """Train with `seed` in both; the kills, in order. AssertionError when a bit or a point
        differs."""
        for clone in (self.calm, self.disturbed):
            set_params(clone, seed=seed)
        start = time.monotonic()
        run(self.calm, "dvc", "repro")
        duration = time.monotonic() - start
        deaths: list[Death] = []
        for kind in kinds:
            printed, death = self._kill(kind, duration)
            self._note_resume(deaths, printed)
            deaths.append(death)
        self._note_resume(deaths, run(self.disturbed, "dvc", "repro"))
        assert lock(self.disturbed) == lock(self.calm), f"seed {seed}: dvc.lock differs"
        self._check_points(str(fingerprint_from_lock(lock(self.calm), "train")))
        return deaths

    def _kill(self, kind: str, duration: float) -> tuple[str, Death]:
        more = {"TORTURE_TEAR": str(self.draws.randint(2, 40))} if kind == "torn" else {}
        with tempfile.TemporaryFile("w+") as output:
            dvc = subprocess.Popen(
                ["dvc", "repro"], cwd=self.disturbed, env={**self.environment, **more},
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            if kind != "torn":
                try:
                    dvc.wait(self.draws.uniform(0.2, duration))
                except subprocess.TimeoutExpired:
                    _send(kind, dvc)
            dvc.wait(300)
            _wait_for_the_end(self.disturbed)
            output.seek(0)
            printed = output.read()
        stages = STAGE.findall(printed)
        return printed, Death(kind, stages[-1] if stages else "none")

    def _note_resume(self, deaths: list[Death], printed: str) -> None:
        if deaths and (found := RESUMED.search(printed)):
            deaths[-1].resumed = int(found[1]), int(found[2])

    def _check_points(self, fingerprint: str) -> None:
        """One training run with this fingerprint; its points are those of the undisturbed one."""
        wanted, found = (_points(clone, fingerprint) for clone in (self.calm, self.disturbed))
        assert len(found) == 1, f"{len(found)} runs have the fingerprint {fingerprint}"
        assert found == wanted, "points differ, are doubled, or are missing"


def _send(kind: str, dvc: "subprocess.Popen[bytes]") -> None:
    if kind in ("term", "interrupt"):
        os.killpg(dvc.pid, signal.SIGTERM if kind == "term" else signal.SIGINT)
    elif kind == "dvc":
        dvc.kill()
    else:
        for child in psutil.Process(dvc.pid).children(recursive=True):
            if "src." in " ".join(child.cmdline()):
                child.kill()
                return
        dvc.kill()  # between two stages


def _wait_for_the_end(folder: Path) -> None:
    """No stage may outlive its `dvc` for long."""
    end = time.monotonic() + 60
    while True:
        left = [
            process.pid
            for process in psutil.process_iter(["cmdline", "cwd"])
            if process.info["cwd"] == str(folder)
            and "src." in " ".join(process.info["cmdline"] or [])
        ]
        if not left:
            return
        assert time.monotonic() < end, f"processes {left} go on without their dvc"
        time.sleep(0.1)


def _points(clone: Path, fingerprint: str) -> list[tuple[str, list[tuple]]]:
    """(status, points of training and test) of each run with this fingerprint."""
    with sqlite3.connect(clone / "mlflow.db") as store:
        runs = store.execute(
            "SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'fingerprint' AND t.value = ?", (fingerprint,)
        ).fetchall()  # fmt: skip
        return [
            (status, store.execute(
                "SELECT key, step, value FROM metrics WHERE run_uuid = ? "
                "AND key NOT LIKE 'system/%' ORDER BY key, step, timestamp", (run_id,)
            ).fetchall())
            for run_id, status in runs
        ]  # fmt: skip


def kills_of(counts: dict[str, int], per_round: int, draws: random.Random) -> list[list[str]]:
    """The kinds of kills of each round, mixed."""
    kinds = [kind for kind in KINDS for _ in range(counts[kind])]
    draws.shuffle(kinds)
    return [kinds[i : i + per_round] for i in range(0, len(kinds), per_round)]


def report(deaths: list[Death]) -> str:
    """Each kill in a line, and how many trainings went on where."""
    lines = [
        f"  {death.kind:<9} in {death.stage:<13} "
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
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    defaults = {"stage": 45, "torn": 5, "dvc": 10, "term": 10, "interrupt": 10}
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=defaults[kind])
    parser.add_argument("--per-round", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = vars(parser.parse_args())
    draws = random.Random(given["seed"])
    deaths: list[Death] = []
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder).resolve(), draws)
        for seed, kinds in enumerate(kills_of(given, given["per_round"], draws)):
            deaths += torture.round(seed, kinds)
            print(f"round {seed}: same bits after {', '.join(kinds)}", flush=True)
    print(report(deaths))


if __name__ == "__main__":
    main()
