"""Writes versions.yaml, the part of runtime.lock that can change the bits of a result.

Stages declare these versions as DVC params, so an upgrade of one of them runs again what it
touches, and an upgrade of anything else runs nothing. Run by `make lock`.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Each computes, decodes, draws or stores something that ends in an output of a stage.
PACKAGES = (
    "matplotlib",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)
HEADER = """\
# Made by `make lock` from runtime.lock; do not edit.
# The versions of the packages that can change a result. Stages declare them as DVC params.
"""


def render(lock: str) -> str:
    """The text of versions.yaml for the text of a lock file.

    Raises ValueError if the lock does not pin each package of PACKAGES to exactly one version.
    """
    lines = []
    for package in PACKAGES:
        pins = re.findall(rf"^{re.escape(package)}==([^\s;\\]+)", lock, re.MULTILINE)
        if len(pins) != 1:
            found = ", ".join(pins) or "none"
            raise ValueError(f"one version of {package} expected, found {found}")
        # Quoted: YAML would read a version such as 3.10 as the number 3.1.
        lines.append(f'{package}: "{pins[0]}"\n')
    return HEADER + "".join(lines)


def main() -> int:
    try:
        text = render((HERE / "runtime.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"requirements/runtime.lock: {error}; run `make lock`", file=sys.stderr)
        return 2
    (HERE / "versions.yaml").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
