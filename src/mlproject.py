"""What `mlflow run . -P lr=3e-3` does: `dvc exp run -S lr=3e-3`, after a look at the values.

MLflow passes every parameter that MLproject declares, given or not, so the defaults there are
empty and mean "as in params.yaml". It fills them in with str.format, which cannot name a dotted
key: MLproject declares `prepare.size` as `prepare__size`. What it does not declare it appends as
`--prepare.size 28`, so the dotted name works too.
"""

import sys

from src.plumbing import command
from src.plumbing.overrides import accepted, become_dvc_exp_run


def main() -> None:
    """The command line of MLproject's entry point `main`."""
    become_dvc_exp_run([word for item in accepted(sys.argv[1:]) for word in ("-S", item)])


if __name__ == "__main__":
    sys.exit(command.guarded(main))
