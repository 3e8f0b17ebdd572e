"""The entry point `main` of MLproject, which names every key of params.yaml.

`python -m tests.pipeline.entry_point` brings it up to date.
"""

import re
import textwrap

from src.base.imports import ROOT
from src.plumbing.schema import SCHEMA


def rewrite(text: str) -> str:
    """MLproject with the parameters and the command of `main` as the schema has them."""
    names = [key.replace(".", "__") for key in SCHEMA]
    parameters = "".join(f'      {name}: {{type: string, default: ""}}\n' for name in names)
    words = " ".join(f"{name}={{{name}}}" for name in names)
    lines = textwrap.wrap(words, 94, break_on_hyphens=False, break_long_words=False)
    command = "".join(f"      {line}\n" for line in ["python -m src.mlproject", *lines])
    return re.sub(
        r"(?s)(    parameters:\n).*?(    command: >-\n).*?(?=  prepare:\n)",
        lambda match: match[1] + parameters + match[2] + command,
        text,
        count=1,
    )


if __name__ == "__main__":
    file = ROOT / "MLproject"
    file.write_text(rewrite(file.read_text(encoding="utf-8")), encoding="utf-8")
