"""Which learning rate to try: `python -m src.lr_find`, the LR range test (Smith 2015, 2018).

Trains a fresh net with the real step while the rate rises exponentially, stops when the loss
explodes, and suggests a range around two rates: the one at which the loss falls fastest, and a
tenth of the one at which it is lowest. `--momentum` does the same for 1 / (1 - momentum) at the
configured lr. The net is thrown away; params.yaml, the pipeline and its results stay as they are.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.base.files import write_bytes, write_csv
from src.experiments.lr import curve
from src.plumbing import command, dvc_files, hashes, identity, overrides, workspace
from src.plumbing import params as params_yaml
from src.plumbing.errors import InputError

FOLDER = Path("results/lr_find")  # in .gitignore: no stage reads or writes it


def parse_arguments() -> argparse.Namespace:
    """The arguments. InputError for a number that is too small."""
    parser = command.parser("lr_find", __doc__)
    parser.add_argument(
        "--on", choices=("prepared", "subset"), help="the data set (default: train_on)"
    )
    parser.add_argument("--momentum", action="store_true", help="vary momentum at the fixed lr")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="as many curves, as a band"
    )
    parser.add_argument(
        "--steps", type=int, default=curve.STEPS, metavar="N", help="optimizer steps per curve"
    )
    overrides.add_option(parser)
    given = parser.parse_args()
    for name, least in (("seeds", 1), ("steps", curve.LEAST)):
        if getattr(given, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(given, name)}")
    return given


def main() -> None:
    """The command line."""
    given = parse_arguments()
    workspace.require_project()
    changed = overrides.merge({}, given.values)
    params: dict[str, Any] = dict(params_yaml.load(overrides=changed))
    folder = f"data/{given.on or params['train_on']}"
    if not Path(folder, "meta.json").is_file():
        raise InputError(f"{folder} does not exist: make it with `dvc repro subset`")
    require_made_with(params, folder)

    from src.experiments.lr.ramp import LR, MOMENTUM, measure

    ramp = MOMENTUM if given.momentum else LR
    started = time.monotonic()
    curves = measure(params, folder, ramp, given.seeds, given.steps)
    found = curve.suggest(curves)
    now = ramp.rate_of(params[ramp.name])
    what = f"{params['model']}, {params['optimizer']}, {folder}"
    lines = [
        f"{what}: {sum(len(item.rates) for item in curves)} steps of "
        f"{params['batch_size'] * params['accumulate']} images in "
        f"{time.monotonic() - started:.0f} s",
        *curve.explained(found, now, ramp.as_param),
    ]
    words = shlex.join(overrides.arguments({**changed, ramp.name: ramp.as_param(found.to_try)}))
    lines.append(f"try next: dvc exp run {words}")
    print("\n".join(lines))
    marks = {
        "steepest descent": found.steepest,
        "a tenth of the minimum": found.tenth,
        f"configured {ramp.name}": now,
    }
    figure, table = FOLDER / f"{ramp.name}.png", FOLDER / f"{ramp.name}.csv"
    write_bytes(figure, curve.draw(curves, marks, found.limits, ramp.label, what))
    write_csv(table, *curve.table(curves, params["seed"]))
    print(f"figure: {figure}   table: {table}")
    if params["machine.tracking"]:
        low, high = (ramp.as_param(rate) for rate in found.limits)
        title = f"lr_find {ramp.name} {low}..{high}"
        log(title, params, curves[0], folder, [figure, table], lines)


def require_made_with(params: Mapping[str, Any], folder: str) -> None:
    """InputError if the data set was made with other params than these."""
    lock = workspace.read_here("dvc.lock") or ""
    for name in ("prepare", "subset") if folder.endswith("subset") else ("prepare",):
        made = (identity.locked_stage(lock, name) or {"params": {}})["params"]
        now = {key: params[key] for key in dvc_files.stage_entry(name, params).params}
        differing = identity.differing(identity.canonical(made), identity.canonical(now))
        for key, (before, value) in differing.items():
            if None not in (before, value):
                raise InputError(
                    f"{folder} was made with {key}={before}, not {value}: put it into params.yaml "
                    f"and make the data with `dvc repro {name}` first"
                )


def log(
    title: str,
    params: Mapping[str, Any],
    first: curve.Curve,
    folder: str,
    files: list[Path],
    lines: list[str],
) -> None:
    """An MLflow run with the curve of the first seed, the files, and what was printed."""
    from src.tracking.tool import log_run

    log_run(
        workspace.main_repository(),
        "lr_find",
        title,
        {key: str(identity.canonical(value)) for key, value in params.items() if "." not in key},
        {
            "lr_find/rate": first.rates.tolist(),
            "lr_find/loss": first.losses.tolist(),
            "lr_find/smooth": first.smooth.tolist(),
        },
        {folder: hashes.md5_of(folder)},
        files,
        "\n".join(["```", *lines, "```"]),
    )


if __name__ == "__main__":
    sys.exit(command.guarded(main))
