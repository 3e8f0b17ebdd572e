"""What the start, the work and the end of each stage cost: `python -m bench.starts [REVISION]`.

The stages of HEAD and of REVISION in turn, in two clones, with one epoch of training. Counted are
the CPU seconds of a stage's process and of those that it starts, so a busy machine hardly matters:
start until it turns to the first sample (an image to pack or to copy, a check, a training step, the
net's first batch of val), work until the last, end until the process is gone. Medians of the pairs,
then the ratio of HEAD to REVISION.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STAGES = ("prepare", "subset", "overfit-check", "train", "evaluate")
PHASES = ("start", "work", "end")

# Runs a stage and writes its CPU seconds at the first and at the last work. The marks sit on what
# is light to import, so that each stage imports all else when it would.
TIMED = """
import importlib, json, resource, runpy, sys
name, file = sys.argv[1:]
sys.argv[1:] = []
marks = []

def note(last=False):
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    del marks[1:]  # the last of several
    marks.append(sum(one.ru_utime + one.ru_stime for one in used))
    json.dump(marks, open(file, "w"))

def before(place, attribute, last=False, when=lambda *given: True):
    real = getattr(place, attribute)
    def noting(*given, **named):
        if when(*given):
            note(last)
        return real(*given, **named)
    setattr(place, attribute, noting)

def module(name):
    return importlib.import_module("src." + name)

first = lambda *given: not marks
if name == "prepare":
    before(module("plumbing.terminal").Counted, "__enter__")
    before(module("plumbing.terminal").Counted, "__exit__", last=True)
elif name == "subset":
    before(module("data.packed").PackedSplit, "__init__", when=first)
    before(module("base.files"), "write_json", last=True)
elif name == "overfit-check":
    before(module("plumbing.terminal").Checks, "__enter__")
    before(module("plumbing.terminal").Checks, "__exit__", last=True)
elif name == "train":
    before(module("plumbing.terminal").Progress, "__enter__")
    before(module("plumbing.terminal").Progress, "__exit__", last=True)
else:
    key = lambda params, key: key == "evaluate.flip" and not marks
    before(module("plumbing.stage").DeclaredParams, "__getitem__", when=key)
    before(module("base.files"), "write_json", last=True)
runpy.run_module("src." + name.replace("-", "_"), run_name="__main__", alter_sys=True)
"""


def seconds(project: Path, stage: str) -> list[float]:
    """CPU seconds of start, work and end of a stage."""
    file = project / "marks.json"
    command = [sys.executable, "-c", TIMED, stage, str(file)]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} failed in {project}")
    first, last = json.loads(file.read_text())
    return [first, last - first, used.ru_utime + used.ru_stime - last]


def clone(revision: str, target: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", ".", target], check=True)
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=target, check=True)
    params = target / "params.yaml"
    lines = params.read_text().splitlines(keepends=True)
    params.write_text("".join("epochs: 1\n" if x.startswith("epochs:") else x for x in lines))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.starts", description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD~1")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clones = [clone(rev, Path(folder) / rev) for rev in (wanted.revision, "HEAD")]
        for stage in STAGES:  # what the later stages read, and the store of MLflow
            for project in clones:
                seconds(project, stage)
        print("| stage | before: start | work | end ", end="")
        print("| after: start | work | end | ratio of start | of all |")
        print("|---|---|---|---|---|---|---|---|---|")
        for stage in wanted.stages:
            pairs = [[seconds(project, stage) for project in clones] for _ in range(wanted.pairs)]
            middle = [
                [statistics.median(pair[side][phase] for pair in pairs) for phase in range(3)]
                for side in range(2)
            ]
            shown = " | ".join(f"{value:.2f}" for side in middle for value in side)
            starts, all_of_it = middle[1][0] / middle[0][0], sum(middle[1]) / sum(middle[0])
            print(f"| {stage} | {shown} | {starts:.2f} | {all_of_it:.2f} |", flush=True)


if __name__ == "__main__":
    main()
