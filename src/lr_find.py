"""Which learning rate to try: `python -m src.lr_find`, the LR range test (Smith 2015, 2018).

Trains a fresh net with the real step while the rate rises exponentially, stops when the loss
explodes, and suggests a range around two rates: the one at which the loss falls fastest, and a
tenth of the one at which it is lowest. `--momentum` does the same for 1 / (1 - momentum) at the
configured lr. The net is thrown away; params.yaml, the pipeline and its results stay as they are.
"""

import argparse
import sys
import time
from pathlib import Path

from src import pipeline, recipe, repository, stage
from src.errors import GateError, InputError
from src.files import write_bytes, write_csv

FOLDER = Path("results/lr_find")  # in .gitignore: no stage reads or writes it
LEAST = 30  # steps on a curve that can be read (choice)


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
        "--steps", type=int, default=150, metavar="N", help="optimizer steps per curve"
    )
    parser.add_argument(
        "-S", action="append", default=[], dest="values", metavar="KEY=VALUE",
        help="another value than in params.yaml",
    )  # fmt: skip
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
    repository.require_project()
    overrides = recipe.merge({}, given.values)
    params = recipe.check(overrides)
    folder = f"data/{given.on or params['train_on']}"
    started = time.monotonic()

    import numpy as np

    from src import lr_curve
    from src.data.packed import PackedSplit
    from src.training.device import prepare_device, told_in_one_line
    from src.training.range_test import LR, MOMENTUM, range_test

    if not Path(folder, "meta.json").is_file():
        raise InputError(f"{folder} does not exist: make it with `dvc repro subset`")
    data = PackedSplit(folder, "train")
    device = prepare_device(
        str(params["machine.device"]), int(str(params["threads"])),
        str(params["deterministic"]), bool(params["tf32"]),
    )  # fmt: skip
    knob = MOMENTUM if given.momentum else LR
    first = int(str(params["seed"]))
    curves = []
    with told_in_one_line("lr_find"):
        for seed in range(first, first + given.seeds):
            rates, losses = range_test({**params, "seed": seed}, data, device, knob, given.steps)
            if len(losses) < min(LEAST, given.steps):
                raise GateError(
                    f"lr_find: the loss explodes after {len(losses)} steps, at "
                    f"{knob.name} {as_param(knob.name, rates[len(losses) - 1])}: look at the data, "
                    + ("or lower lr" if given.momentum else "or take another net")
                )
            curves.append(lr_curve.fit(rates, losses))
    found = lr_curve.suggest(curves)
    shown = {
        "steepest descent": found.steepest,
        "a tenth of the minimum": found.tenth,
    }
    configured = float(str(params[knob.name]))
    now = configured if knob.name == "lr" else 1 / (1 - configured)
    what = f"{params['model']}, {params['optimizer']}, {folder}"
    label = "learning rate" if knob.name == "lr" else "1 / (1 - momentum)"
    marks = {**shown, f"configured {knob.name}": now}
    write_bytes(
        FOLDER / f"{knob.name}.png", lr_curve.picture(curves, marks, found.limits, label, what)
    )
    write_csv(
        FOLDER / f"{knob.name}.csv",
        ["seed", "rate", "loss", "smooth", "slope"],
        [
            [first + number, *row]
            for number, curve in enumerate(curves)
            for row in zip(curve.rates.tolist(), curve.losses.tolist(), curve.smooth.tolist(),
                           curve.slope.tolist(), strict=True)
        ],
    )  # fmt: skip

    def text(rate: float) -> str:
        return as_param(knob.name, rate)

    low, high = found.limits
    where = "below" if now < low else "above" if now > high else "inside"
    lines = [
        f"{what}: {sum(len(curve.rates) for curve in curves)} steps of "
        f"{int(str(params['batch_size'])) * int(str(params['accumulate']))} pictures in "
        f"{time.monotonic() - started:.0f} s",
        f"  {text(found.steepest):>8}  steepest descent: here a step of this size gains most",
        f"  {text(found.tenth):>8}  a tenth of the rate with the lowest loss "
        f"({text(found.tenth * lr_curve.BELOW_MINIMUM)}), which is at the edge: later it diverges",
        f"  {text(now):>8}  configured, {where} the suggested range {text(low)} .. {text(high)}",
    ]
    if len(curves) > 1:
        each = sorted(found.per_seed)
        lines.append(
            f"  seeds alone suggest {text(each[0])} .. {text(each[-1])} "
            f"(a factor of {np.max(each) / np.min(each):.1f})"
        )
    best = text(found.to_try)
    rest = {key: value for key, value in overrides.items() if key != knob.name}
    words = " ".join(recipe.arguments({**rest, knob.name: best}))
    lines.append(f"try next: dvc exp run {words}")
    print("\n".join(lines))
    print(f"picture: {FOLDER}/{knob.name}.png   table: {FOLDER}/{knob.name}.csv")
    if params["machine.tracking"]:
        from src.tracking.tool import log_run

        mean = curves[0]
        log_run(
            pipeline.main_repository(),
            "lr_find",
            f"lr_find {knob.name} {text(low)}..{text(high)}",
            {
                key: str(pipeline.canonical(value))
                for key, value in params.items()
                if "." not in key
            },
            {
                f"lr_find/{name}": values.tolist()
                for name, values in (("rate", mean.rates), ("loss", mean.losses),
                                     ("smooth", mean.smooth))
            },
            {folder: pipeline.md5_of(folder)},
            [FOLDER / f"{knob.name}.png", FOLDER / f"{knob.name}.csv"],
            "```\n" + "\n".join(lines) + "\n```",
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(stage.guarded(main))
