"""What the `-P lr=3e-3` of `mlflow run` does: `dvc exp run -S lr=3e-3`, after a look at the values.

MLflow hands on what MLproject does not declare as `--lr 3e-3`, so MLproject lists no keys.
"""

import sys

from src.plumbing import command
from src.plumbing.overrides import arguments, become_dvc_exp_run, of_mlflow


def main() -> None:
    """The command line of MLproject's entry point `main`."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        command.parser("mlproject", __doc__).parse_args()
    become_dvc_exp_run(arguments(of_mlflow(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(command.guarded(main))
