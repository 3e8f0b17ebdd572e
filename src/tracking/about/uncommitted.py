"""What the working directory has and HEAD has not, as a patch: `git apply` turns a clone of the
commit into the files that a run was made from.

Only of what a result depends on, new files included; never of files that hold secrets by their name
or by an address with a password in what changed.
"""

import os
import re
import subprocess
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from src.plumbing import git, params
from src.plumbing.errors import InputError
from src.tracking.about.provenance import SOURCES

ARTIFACT = "provenance/uncommitted.diff"
PATHS = (*SOURCES, params.FILE)
SECRET = (
    *(".env*", "*.env", ".netrc", ".pgpass", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore"),
    *("*secret*", "*passw*", "*credential*"),
)
# Names of secrets that are ordinary for the code and the data of a project (tokenizer.py).
SECRET_UNLESS_CODE = ("*token*", "id_*")
CODE = (".py", ".dvc")
# An address with a password, also one with a slash in it; not where code fills it in. Written such
# that this line is none.
ADDRESS = re.compile(rb":/{2}[^\s:/]*:(?!\$?\{[^{}\s]*\}@)\S{1,1000}@\S")
LARGEST = 2**20  # bytes of a patch, and of a file in it, that are worth reading (choice)
TOO_LARGE = f"larger than {LARGEST} bytes"
CUT = b"... cut: the difference is longer\n"
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # line breaks, and what a terminal obeys
LEFT_OUT = "# left out: "  # git takes no notice of lines before the first file of a patch


def difference() -> bytes:
    """The patch, which begins with a line for each file that was left out; empty if nothing
    differs, and without git. One that ends in `CUT` is for reading only."""
    # Without a commit everything differs from a tree that is empty.
    base = _line("rev-parse", "--verify", "--quiet", "HEAD") or _line(
        "hash-object", "-t", "tree", "--stdin"
    )
    changed = _names("diff", "--name-only", "--no-renames", "--relative", "-z", base)
    new = _names("ls-files", "--others", "--exclude-standard", "-z")
    names = sorted({*changed, *new})
    reasons = {name: reason for name in names if (reason := _why_not(name))}
    # In a patch git takes paths from the root of the repository, also where the project lies below.
    prefix = _line("rev-parse", "--show-prefix")
    left_out = [f"{prefix}{name} ({reason})" for name, reason in reasons.items()]
    patch = b""
    if kept := [name for name in names if name not in reasons]:
        try:
            patch, more = _patch(base, prefix, kept)
        except OSError as error:  # no place for temporary files
            more = [f"all files ({error.strerror})"]
        left_out += more
    head = "".join(f"{LEFT_OUT}{CONTROL.sub('?', text)}\n" for text in left_out)
    text = os.fsencode(head) + patch
    if len(text) > LARGEST:
        return text[: text.rfind(b"\n", 0, LARGEST) + 1] + CUT
    return text + CUT if TOO_LARGE in reasons.values() else text


def files_left_out(patch: bytes) -> list[str]:
    """What is missing in a patch, each file with the reason."""
    head = os.fsdecode(patch.partition(b"diff --git ")[0]).splitlines()
    return [line.removeprefix(LEFT_OUT) for line in head if line.startswith(LEFT_OUT)]


def can_be_applied(patch: bytes) -> bool:
    """Whether `git apply` takes what `difference` returned."""
    return b"diff --git " in patch and not patch.endswith(CUT)


def _why_not(name: str) -> str:
    """Why a file does not belong in a patch; empty if it does."""
    patterns = SECRET if name.endswith(CODE) else SECRET + SECRET_UNLESS_CODE
    if any(fnmatch(part.lower(), pattern) for part in name.split("/") for pattern in patterns):
        return "its name is that of a secret"
    if name.endswith("/"):
        return "a repository of its own"
    try:
        return TOO_LARGE if Path(name).lstat().st_size > LARGEST else ""
    except OSError:  # removed, which is a difference too
        return ""


def _patch(base: str, prefix: str, names: list[str]) -> tuple[bytes, list[str]]:
    """What git makes of the difference between the tree `base` and these files, and what is missing
    in it. The user's index and objects stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_LITERAL_PATHSPECS": "1"}
        loaded = _git("read-tree", base, environment=own)
        # With no content in the index, so that git looks at the files themselves.
        empty = _line("hash-object", "-t", "blob", "--stdin")
        present = (name for name in names if os.path.lexists(name))
        entries = os.fsencode("".join(f"100644 {empty}\t{prefix}{name}\0" for name in present))
        add = ("update-index", "--add", "--replace", "-z", "--index-info")
        added = _git(*add, given=entries, environment=own)
        # Unlike `git diff`, this one does not depend on the user's settings. As text also what git
        # takes for binary: it shows an address, and `git apply` takes it all the same.
        diff = ("-c", "core.quotePath=false", "diff-index", "--patch", "--text", "--no-renames")
        plain = ("--no-ext-diff", "--no-textconv")
        text = _git(*diff, *plain, base, "--", *names, environment=own)
    if loaded is None or added is None or text is None:
        return b"", ["all files (git failed)"]
    # Each part begins with the line `diff --git a/<name> b/<name>`.
    parts = re.split(rb"(?m)^(?=diff --git )", text)[1:]
    hidden = [part for part in parts if ADDRESS.search(part)]
    kept = b"".join(part for part in parts if part not in hidden)
    return kept, [f"{_name(part)} (an address with a password)" for part in hidden]


def _name(part: bytes) -> str:
    both = os.fsdecode(part.partition(b"\n")[0].removeprefix(b"diff --git "))
    return both[: len(both) // 2].strip('"').removeprefix("a/")


def _names(*arguments: str) -> list[str]:
    listed = _git("--no-optional-locks", *arguments, "--", *PATHS) or b""
    return [name for name in os.fsdecode(listed).split("\0") if name]


def _line(*arguments: str) -> str:
    return os.fsdecode(_git(*arguments) or b"").rstrip("\n")


def _git(
    *arguments: str, given: bytes = b"", environment: dict[str, str] | None = None
) -> bytes | None:
    """What `git` prints; None if it fails, takes longer than a minute, or is not installed."""
    try:
        done = git.run(*arguments, given=given, environment=environment, seconds=60)
    except (InputError, OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
