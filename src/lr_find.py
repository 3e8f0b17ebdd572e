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
from typing import TYPE_CHECKING, Any

import yaml

from src.base.files import write_bytes, write_csv
from src.plumbing import command, dvc_files, identity, overrides, workspace
from src.plumbing.errors import GateError, InputError

if TYPE_CHECKING:
    from src.experiments.lr import curve

FOLDER = Path("results/lr_find")  # in .gitignore: no stage reads or writes it
LEAST = 30  # steps on a curve that can be read (choice)
STEPS = 150  # as a rule: a curve that ends at a fifth of the range can still be read (choice)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m src.lr_find", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--on", choices=("prepared", "subset"), help="the data set (default: train_on)"
    )
    parser.add_argument("--momentum", action="store_true", help="vary momentum at the fixed lr")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="as many curves, as a band"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="N", help="optimizer steps per curve"
    )
    overrides.take_values(parser)
    given = parser.parse_args()
    for name, least in (("seeds", 1), ("steps", LEAST)):
        if getattr(given, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(given, name)}")
    return given


def as_param(knob: str, rate: float) -> str:
    """A rate as the value of its param, with two digits that count."""
    return f"{rate:.2g}" if knob == "lr" else f"{1 - float(f'{1 / rate:.2g}'):.6g}"


def main() -> None:
    """The command line."""
    given = parse_arguments()
    workspace.require_project()
    changed = overrides.merge({}, given.values)
    params: dict[str, Any] = dict(overrides.check(changed))
    folder = f"data/{given.on or params['train_on']}"
    if not Path(folder, "meta.json").is_file():
        raise InputError(f"{folder} does not exist: make it with `dvc repro subset`")
    require_made_with(params, folder)
    knob = "momentum" if given.momentum else "lr"
    started = time.monotonic()
    curves = measure(params, folder, knob, given.seeds, given.steps)

    from src.experiments.lr import curve

    found = curve.suggest(curves)
    now = params[knob] if knob == "lr" else 1 / (1 - params[knob])
    what = f"{params['model']}, {params['optimizer']}, {folder}"
    lines = [
        f"{what}: {sum(len(item.rates) for item in curves)} steps of "
        f"{params['batch_size'] * params['accumulate']} pictures in "
        f"{time.monotonic() - started:.0f} s",
        *explained(found, knob, now),
    ]
    rest = {key: value for key, value in changed.items() if key != knob}
    words = shlex.join(overrides.arguments({**rest, knob: as_param(knob, found.to_try)}))
    lines.append(f"try next: dvc exp run {words}")
    print("\n".join(lines))
    marks = {
        "steepest descent": found.steepest,
        "a tenth of the minimum": found.tenth,
        f"configured {knob}": now,
    }
    label = "learning rate" if knob == "lr" else "1 / (1 - momentum)"
    png, table = FOLDER / f"{knob}.png", FOLDER / f"{knob}.csv"
    write_bytes(png, curve.picture(curves, marks, found.limits, label, what))
    write_csv(table, *curve.table(curves, params["seed"]))
    print(f"picture: {png}   table: {table}")
    if params["machine.tracking"]:
        low, high = (as_param(knob, rate) for rate in found.limits)
        log(f"lr_find {knob} {low}..{high}", params, curves, folder, [png, table], lines)


def require_made_with(params: Mapping[str, Any], folder: str) -> None:
    """InputError if the pictures were made with other params than these."""
    text = workspace.read_here("dvc.lock") or ""
    for name in ("prepare", "subset") if folder.endswith("subset") else ("prepare",):
        try:
            made = (identity.locked_stage(text, name) or {"params": {}})["params"]
        except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"dvc.lock cannot be read ({reason})") from None
        for key in dvc_files.stage_entry(name, params).params:
            value, before = params[key], made.get(key, params[key])
            if identity.canonical(value) != identity.canonical(before):
                raise InputError(
                    f"{folder} was made with {key}={before}, not {value}: put it into params.yaml "
                    f"and make the pictures with `dvc repro {name}` first"
                )


def measure(
    params: dict[str, Any], folder: str, knob: str, seeds: int, steps: int
) -> "list[curve.Curve]":
    """The curve of each seed, from the configured one on. GateError for a curve that ends before it
    can be read."""
    from src.data.packed import PackedSplit
    from src.experiments.lr import curve
    from src.experiments.lr.ramp import LR, MOMENTUM, range_test
    from src.model.device import prepare_device, told_in_one_line

    data = PackedSplit(folder, "train")
    settings = (params[key] for key in ("machine.device", "threads", "deterministic", "tf32"))
    device = prepare_device(*settings)
    curves = []
    with told_in_one_line("lr_find"):
        for seed in range(params["seed"], params["seed"] + seeds):
            ramp = LR if knob == "lr" else MOMENTUM
            rates, losses = range_test({**params, "seed": seed}, data, device, ramp, steps)
            if len(losses) < min(LEAST, steps):
                last = as_param(knob, rates[len(losses) - 1] if len(losses) else ramp.low)
                what_next = (
                    f"give it more, such as --steps {STEPS}"
                    if len(losses) * STEPS >= LEAST * steps  # that many show enough of it
                    else "look at the data, or "
                    + ("take another net" if knob == "lr" else "lower lr")
                )
                raise GateError(
                    f"lr_find: the loss explodes after {len(losses)} steps, at {knob} {last}: "
                    f"{what_next}"
                )
            curves.append(curve.fit(rates, losses))
    return curves


def explained(found: "curve.Suggestion", knob: str, now: float) -> list[str]:
    """The lines that say what each rate is; `now`: the configured one."""

    def text(rate: float) -> str:
        return as_param(knob, rate)

    low, high = found.limits
    where = "below" if now < low else "above" if now > high else "inside"
    steepest = (
        "the lowest that was tried: the steepest descent may lie below, and does not count"
        if found.from_start
        else "steepest descent: here a step of this size gains most"
    )
    lowest = (
        f"the rate with the lowest loss ({text(found.minimum)}): above it the loss rises"
        if found.diverges
        else f"{text(found.minimum)}: the loss is still low where the range ends, it may be more"
    )
    lines = [
        f"  {text(found.steepest):>8}  {steepest}",
        f"  {text(found.tenth):>8}  a tenth of {lowest}",
        f"  {text(now):>8}  configured, {where} the suggested range {text(low)} .. {text(high)}",
    ]
    if len(found.per_seed) > 1:
        least, most = min(found.per_seed), max(found.per_seed)
        lines.append(
            f"  seeds alone suggest {text(least)} .. {text(most)} (a factor of {most / least:.1f})"
        )
    return lines


def log(
    name: str,
    params: dict[str, Any],
    curves: "list[curve.Curve]",
    folder: str,
    files: list[Path],
    lines: list[str],
) -> None:
    """An MLflow run with the curve of the first seed, the files, and what was printed."""
    from src.tracking.tool import log_run

    first = curves[0]
    log_run(
        workspace.main_repository(),
        "lr_find",
        name,
        {key: str(identity.canonical(value)) for key, value in params.items() if "." not in key},
        {
            "lr_find/rate": first.rates.tolist(),
            "lr_find/loss": first.losses.tolist(),
            "lr_find/smooth": first.smooth.tolist(),
        },
        {folder: dvc_files.md5_of(folder)},
        files,
        "\n".join(["```", *lines, "```"]),
    )


if __name__ == "__main__":
    sys.exit(command.guarded(main))
