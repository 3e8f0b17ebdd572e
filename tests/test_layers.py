"""Who may import whom: a package what stands below it; nobody the modules at the root of src/."""

from graphlib import TopologicalSorter
from pathlib import Path

from src.base.imports import EXCLUDED, ROOT, imports_of
from src.base.kinds import KINDS

# From the bottom to the top; "" is the root of src/. A file of `yours` may import all that stands
# below; the one place that imports it may stand there too.
LAYERS = ["base", "plumbing", "data", "preparation", *KINDS, "yours", "model", "checks", "training"]
LAYERS += ["reports", "tracking", "experiments", ""]
FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}


def package_of(file: str) -> str:
    folder, *below = Path(file).parts[1:]
    return folder if below else ""


def files_of(module: str) -> set[str]:
    base = module.replace(".", "/")
    return FILES & {f"{base}.py", f"{base}/__init__.py"}


IMPORTED = {file: set().union(*map(files_of, imports_of(file))) - {file} for file in FILES}
# (file, file that it imports) of two packages. To import `src` itself is to import none.
ARROWS = [
    (file, other)
    for file in sorted(FILES)
    for other in sorted(IMPORTED[file] - {"src/__init__.py"})
    if package_of(file) != package_of(other) or not package_of(other)
]


def test_imports_lead_down() -> None:
    level = {package: number for number, package in enumerate(LAYERS)}
    assert {package_of(file) for file in FILES} == set(LAYERS)
    others = [(a, b) for a, b in ARROWS if package_of(b) != "yours"]
    assert [(a, b) for a, b in others if level[package_of(a)] <= level[package_of(b)]] == []


def test_there_is_no_circle() -> None:
    TopologicalSorter(IMPORTED).prepare()


def test_the_checks_know_nothing_else_of_the_project() -> None:
    assert [(a, b) for a, b in ARROWS if package_of(a) == "checks"] == []


def test_each_file_of_yours_is_used_in_one_place() -> None:
    yours = {path for path in FILES if package_of(path) == "yours"} - {"src/yours/__init__.py"}
    assert sorted(b for _, b in ARROWS if b in yours) == sorted(yours)


def test_only_tracking_imports_mlflow() -> None:
    modules = {file: {name.partition(".")[0] for name in imports_of(file)} for file in FILES}
    assert {package_of(file) for file in FILES if "mlflow" in modules[file]} == {"tracking"}


def test_the_wall_is_two_packages() -> None:
    """tests/pipeline/test_reproduction.py runs the pipeline with stand-ins for all of both."""
    assert EXCLUDED == ("src/tracking/", "src/plumbing/")
