"""Which change helped? `python -m src.compare A B ...`: each of the others against A.

A name is an experiment, a commit or branch, an MLflow run id, `workspace`, or params such as
`lr=0.003`; it stands for all experiments and commits that differ from it in `seed` alone. First
what changed, then whether it is more than noise: between trainings with several seeds, and on the
images at hand. Choices are made on val; `--final` looks at test and is counted.
"""

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

from src.base.files import round_floats, write_bytes
from src.experiments.compare import experiment_log, figure, groups, report, text
from src.experiments.compare.groups import Group
from src.experiments.compare.report import Report
from src.experiments.target import run_of
from src.plumbing import command, workspace
from src.plumbing.errors import InputError
from src.tracking import lookup

FIGURES = Path(".cache/compare")  # in the main repository, where git and DVC do not look
LENGTH = 100  # bytes of a figure's name (choice)


def main() -> None:
    """The command line."""
    parser = command.parser("compare", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the first is what to beat")
    parser.add_argument(
        "--metric", default="accuracy", help="of metrics.json, your own among them; accuracy"
    )
    parser.add_argument("--final", action="store_true", help="use test; the look is counted")
    parser.add_argument("--log", metavar="WHY", help="add an entry to docs/experiments.md")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as JSON")
    form.add_argument("--markdown", action="store_true", help="print text for a pull request")
    arguments = parser.parse_args()
    workspace.require_project()
    if len(arguments.names) < 2:
        raise InputError("compare needs two names or more: python -m src.compare HEAD NAME")
    root = workspace.main_repository()
    compared = groups.find(arguments.names, root)
    split = "test" if arguments.final else "val"
    found = report.make(compared, split, root, arguments.metric)
    if arguments.final:
        found = replace(found, looks=experiment_log.count_look())
    path = _write_figure(compared, found, root)
    noted = _write_descriptions(compared, found, root)
    if arguments.log is not None:
        experiment_log.append(found, arguments.log)
    if arguments.json:
        print(json.dumps(round_floats({**asdict(found), "figure": str(path)}), indent=2))
    elif arguments.markdown:
        print(text.markdown(found))
    else:
        print(text.terminal(found))
        print(f"\nfigure: {path}")
        if noted:
            print(f"noted on the MLflow run of {', '.join(noted)}")
        if arguments.log is not None:
            print(
                f"an entry was added to {experiment_log.FILE}: commit it, or the next experiment "
                "takes it along"
            )


def _write_figure(compared: list[Group], found: Report, root: Path) -> Path:
    names = "-".join([*(group.name for group in compared), found.split, found.metric])
    # File systems count bytes, of which a character may have four.
    short = re.sub(r"[^\w.=-]", "_", names).encode()[-LENGTH:].decode(errors="ignore")
    path = root / FIGURES / f"{short}.png"
    write_bytes(path, figure.draw(compared, found.split, found.metric))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _write_descriptions(compared: list[Group], found: Report, root: Path) -> list[str]:
    """Write each comparison into the description of the run of the second; the names noted."""
    noted = []
    for group, item in zip(compared[1:], found.comparisons, strict=True):
        run_id = run_of(root, group.named.stages["train"])
        markdown = text.markdown(replace(found, comparisons=[item]))
        if run_id and lookup.describe_comparison(root, run_id, markdown):
            noted.append(group.name)
    return noted


if __name__ == "__main__":
    sys.exit(command.guarded(main))
