"""What the working directory has and HEAD has not: the difference that belongs to a run.

Only of what makes a result (src/, dvc.yaml, params.yaml), new files included; never of files that
hold secrets by their name.
"""

from fnmatch import fnmatch

from src.tracking.provenance import git

PATHS = ("src", "dvc.yaml", "params.yaml")
SECRET = (".env*", "*.pem", "*.key", "*secret*", "*credential*", "id_rsa*")
LARGEST = 2**20  # bytes of a difference that is worth reading (choice)


def difference() -> bytes:
    """The difference between HEAD and the working directory as git writes it, so that `git apply`
    takes it; empty without one, and without git."""
    changed = _names("diff", "--name-only", "--relative", "-z", "HEAD", "--", *PATHS)
    new = _names("ls-files", "--others", "--exclude-standard", "-z", "--", *PATHS)
    parts = []
    if names := [name for name in changed if not _is_secret(name)]:
        parts.append(git("diff", "--no-color", "--no-ext-diff", "HEAD", "--", *names) or "")
    # In a patch git takes paths from the root of the repository, also where the project lies below.
    prefix = (git("rev-parse", "--show-prefix") or "").strip()
    parts += [_as_new(name, prefix) for name in new if not _is_secret(name)]
    text = "".join(parts).encode()
    if len(text) <= LARGEST:
        return text
    return text[:LARGEST] + b"\n... cut: the difference is longer\n"


def _names(*arguments: str) -> list[str]:
    return [name for name in (git(*arguments) or "").split("\0") if name]


def _is_secret(name: str) -> bool:
    return any(fnmatch(part.lower(), pattern) for part in name.split("/") for pattern in SECRET)


def _as_new(name: str, prefix: str) -> str:
    path = prefix + name
    try:
        with open(name, encoding="utf-8") as file:
            lines = file.read(LARGEST).splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return f"# {path} is new and no text\n"
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    if not lines:
        return ""
    end = "" if lines[-1].endswith("\n") else "\n\\ No newline at end of file\n"
    return head + f"@@ -0,0 +1,{len(lines)} @@\n" + "".join("+" + line for line in lines) + end
