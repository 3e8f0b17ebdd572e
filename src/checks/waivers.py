"""`overfit_check.waive`: which checks do not count, each with its reason."""

from src.base.keys import NONE
from src.checks.catalogue import CHECKS
from src.plumbing.errors import InputError
from src.plumbing.params import did_you_mean


def parse_waivers(text: str) -> dict[str, str]:
    """{check id: reason} of `none` or `id: reason; id: reason`; InputError for an id that no check
    has, or one without a reason."""
    if text == NONE:
        return {}
    found: dict[str, str] = {}
    for entry in text.split(";"):
        id, _, reason = (part.strip() for part in entry.partition(":"))
        if id not in CHECKS:
            raise InputError(
                f"params.yaml: overfit_check.waive names no check '{id}'"
                f"{did_you_mean(id, CHECKS)}; docs/checks.md lists them"
            )
        if not reason:
            raise InputError(
                f"params.yaml: overfit_check.waive needs a reason for {id}, as '{id}: why'"
            )
        found[id] = reason
    return found
