"""Make this clone a project of your own: `make new NAME=my-project`.

Takes out what only the template needs, puts in what a project needs, and commits it: what is only
staged, an experiment of DVC would unstage. Files that git does not know stay as they are.
"""

import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

from src.plumbing import command, git, upstream
from src.plumbing.errors import InputError

VALID = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)  # PyPA's rule for projects


def main() -> None:
    """The command line."""
    parser = command.parser("new", __doc__)
    parser.prog = "python -m new"
    parser.add_argument("name", metavar="NAME")
    name = parser.parse_args().name
    if not VALID.fullmatch(name):
        raise InputError(
            f"make new: '{name}' cannot be the name: NAME=my-project takes letters, digits, '-', "
            "'_' and '.', with a letter or digit at both ends"
        )
    content = Path(upstream.FILE).read_text(encoding="utf-8")
    if note := upstream.read_note(content):
        raise InputError(f"make new: this is the project {note.name} already")
    upstream.require_clean()
    remote, address = find_upstream()
    tree = upstream.project_tree(git.head(), name, address)
    version = tomllib.loads(content)["project"]["version"]
    print(
        f"make new: this clone becomes the project {name}\n{changes(tree)}\n"
        f"  pyproject.toml notes version {version}, commit {git.head()[:9]}, "
        f"from {address or 'an address that is not known here'}",
        flush=True,
    )
    done = git.run("read-tree", "-m", "-u", "HEAD", tree)
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise InputError(f"make new: nothing was changed: {reason}")
    if remote == "origin":
        git.run("remote", "rename", "origin", "upstream")
        git.run("branch", "--unset-upstream")
        git.run("remote", "set-url", "--push", "upstream", "no-push-to-upstream")
        print(
            "  git's remote origin is now called upstream, and takes no push: name your own by\n"
            "  git remote add origin ADDRESS"
        )
    if not address:
        print("  the first upgrade names the address: make upgrade FROM=ADDRESS")
    commit = git.run("commit", "--quiet", "--message", f"Start of {name}")
    if commit.returncode:
        reason = " ".join(commit.stderr.decode("utf-8", "replace").split())
        raise InputError(
            f"make new: all is staged, and git does not commit it ({reason}): git commit --message "
            f'"Start of {name}"'
        )
    print(
        f"It is committed as `Start of {name}`: `git show --stat` shows it, and\n"
        "`git reset --hard HEAD^` takes it back. Next: docs/tutorial.md, or make repro"
    )


def find_upstream() -> tuple[str, str]:
    """The remote that leads to the template, and its address without a password; empty if there is
    none. A repository of one commit that is not shallow was not cloned from the template: somebody
    put its files there, and its origin is the user's own."""
    remotes = (git.output("remote") or "").split()
    alone = (git.output("rev-list", "--count", "HEAD") or "").strip() == "1"
    shallow = (git.output("rev-parse", "--is-shallow-repository") or "").strip() == "true"
    for remote in ("upstream", "origin"):
        if remote in remotes and (remote == "upstream" or shallow or not alone):
            address = (git.output("remote", "get-url", remote) or "").strip()
            return remote, upstream.public(address)
    return "", ""


def changes(tree: str) -> str:
    """What will go, change and come, by folder, in lines."""
    listed = git.printed("diff-tree", "-r", "--no-renames", "--name-status", "HEAD", tree)
    found: dict[str, Counter[str]] = {"D": Counter(), "M": Counter(), "A": Counter()}
    for line in listed.splitlines():
        kind, _, path = line.partition("\t")
        folder, slash, _ = path.partition("/")
        whole = kind == "D" and slash and folder != "docs"
        found[kind][folder + "/" if whole else path] += 1
    return "\n".join(
        f"  {word:8} " + ", ".join(f"{name} ({n})" if n > 1 else name for name, n in names.items())
        for word, names in zip(("goes:", "changes:", "comes:"), found.values(), strict=True)
    )


if __name__ == "__main__":
    sys.exit(command.guarded(main))
