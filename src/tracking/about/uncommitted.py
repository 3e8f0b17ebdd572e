"""What the working directory has and HEAD has not, as a patch: `git apply` turns a clone of the
commit into the files that a run was made from.

Only of what a result depends on, new files included; never of files that hold secrets by their name
or by an address with a password in what changed.
"""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from src.base.files import write_text
from src.plumbing import params
from src.tracking.about.provenance import SOURCES

ARTIFACT = "provenance/uncommitted.diff"
PATHS = (*SOURCES, params.FILE)
SECRET = (
    ".env*", "*.env", ".netrc", ".pgpass", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore",
    "*secret*", "*passw*", "*credential*",
)  # fmt: skip
# Names of secrets that are ordinary for the code and the data of a project (tokenizer.py).
SECRET_UNLESS_CODE = ("*token*", "id_*")
CODE = (".py", ".dvc")
# An address with a password, also one with a slash in it; not where code fills it in. Written such
# that this line is none.
ADDRESS = re.compile(rb":/{2}[^\s:/]*:(?!\$?\{[^{}\s]*\}@)\S{1,1000}@\S")
LARGEST = 2**20  # bytes of a difference, and of a file in it, that are worth reading (choice)
TOO_LARGE = f"larger than {LARGEST} bytes"
CUT = b"... cut: the difference is longer\n"
LEFT_OUT = "# left out: "  # git takes no notice of lines before the first file of a patch
SECONDS = 60  # for one git command (choice)


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
            patch, more = _patch(base, kept)
        except OSError as error:  # no place for temporary files
            more = [f"all files ({error.strerror})"]
        left_out += more
    head = "".join(f"{LEFT_OUT}{line}\n" for line in map(_in_one_line, left_out))
    text = os.fsencode(head) + patch
    if len(text) > LARGEST:
        return text[: text.rfind(b"\n", 0, LARGEST) + 1] + CUT
    return text + CUT if TOO_LARGE in reasons.values() else text


def files_left_out(text: bytes) -> list[str]:
    """What is missing in a difference, each with the reason."""
    head = os.fsdecode(text.partition(b"diff --git ")[0]).splitlines()
    return [line.removeprefix(LEFT_OUT) for line in head if line.startswith(LEFT_OUT)]


def is_patch(text: bytes) -> bool:
    """Whether `git apply` takes a difference."""
    return b"diff --git " in text and not text.endswith(CUT)


def remember(root: Path, fingerprint: str, run_id: str, text: bytes) -> None:
    """Note which difference the run of a training has, for `is_that_of`; `run_id`: empty as long as
    no store gave it one."""
    note = _note(root, fingerprint)
    if text:
        write_text(note, f"{_digest(text)} {run_id}")
    else:
        note.unlink(missing_ok=True)


def is_that_of(root: Path, fingerprint: str, run_id: str, text: bytes) -> bool:
    """Whether a difference is the one that the run of a training has."""
    try:
        digest, _, owner = _note(root, fingerprint).read_text(encoding="utf-8").partition(" ")
    except OSError:
        return False
    return digest == _digest(text) and owner in ("", run_id)


def _note(root: Path, fingerprint: str) -> Path:
    return root / ".cache" / "runs" / "uncommitted" / fingerprint


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _why_not(name: str) -> str:
    """Why a file does not belong in a difference; empty if it does."""
    patterns = SECRET if name.endswith(CODE) else SECRET + SECRET_UNLESS_CODE
    if any(fnmatch(part.lower(), pattern) for part in name.split("/") for pattern in patterns):
        return "its name is that of a secret"
    if name.endswith("/"):
        return "a repository of its own"
    path = Path(name)
    try:
        return TOO_LARGE if path.lstat().st_size > LARGEST else ""
    except OSError:  # removed, which is a difference too
        return ""


def _patch(base: str, names: list[str]) -> tuple[bytes, list[str]]:
    """What git makes of the difference between the tree `base` and these files, and what is missing
    in it. The user's index and objects stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        objects = os.path.abspath(_line("rev-parse", "--git-path", "objects"))
        known = [json.dumps(objects, ensure_ascii=False)]  # quoted as git wants it
        if more := os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES"):
            known.append(more)
        environment = {
            "GIT_INDEX_FILE": os.path.join(folder, "index"),
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(known),
            "GIT_LITERAL_PATHSPECS": "1",
        }
        loaded = _git("read-tree", base, environment=environment)
        # Forced: one that git ignores is among the names only if it is tracked.
        add = ("-c", "core.safecrlf=false", "add", "--all", "--force", "--ignore-errors")
        listed = ("--pathspec-from-file=-", "--pathspec-file-nul")
        given = os.fsencode("\0".join(names))
        added = _git(*add, *listed, given=given, environment=environment)
        # Unlike `git diff`, this one does not depend on the user's settings.
        diff = ("-c", "core.quotePath=false", "diff-index", "--cached", "--patch", "--no-renames")
        plain = ("--no-ext-diff", "--no-textconv", base)
        # As text also what git takes for binary, whose patch is compressed.
        text = _git(*diff, "--text", *plain, environment=environment)
        patch = _git(*diff, "--binary", *plain, environment=environment)
    if loaded is None or text is None or patch is None:
        return b"", ["all files (git failed)"]
    left_out = [] if added is not None else ["some files (git could not read them)"]
    hidden = dict.fromkeys(head for head, part in _by_file(text) if ADDRESS.search(part))
    left_out += [f"{_name(head)} (an address with a password)" for head in hidden]
    return b"".join(part for head, part in _by_file(patch) if head not in hidden), left_out


def _by_file(patch: bytes) -> list[tuple[bytes, bytes]]:
    """The parts of a patch, each with its first line `diff --git a/<name> b/<name>`."""
    parts = re.split(rb"(?m)^(?=diff --git )", patch)[1:]
    return [(part.partition(b"\n")[0], part) for part in parts]


def _name(head: bytes) -> str:
    both = os.fsdecode(head.removeprefix(b"diff --git "))
    return both[: len(both) // 2].strip('"').removeprefix("a/")


def _in_one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", "?", text)


def _names(*arguments: str) -> list[str]:
    listed = _git("--no-optional-locks", *arguments, "--", *PATHS) or b""
    return [name for name in os.fsdecode(listed).split("\0") if name]


def _line(*arguments: str) -> str:
    return os.fsdecode(_git(*arguments) or b"").rstrip("\n")


def _git(
    *arguments: str, given: bytes = b"", environment: dict[str, str] | None = None
) -> bytes | None:
    """What `git` prints; None if it fails, takes too long, or there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            input=given,
            capture_output=True,
            env={**os.environ, **(environment or {})},
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
