"""dvc.yaml and the page of the params are what `python -m src.deps` writes; it refuses to guess."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src import deps as tool
from src.base.imports import ROOT, files_of
from src.plumbing import deps, dvc_files, params
from src.plumbing.errors import InputError
from src.plumbing.schema import SCHEMA
from tests import template
from tests.conftest import python

PIPELINE = template.pipeline_text()
Write = Callable[[dict[str, str]], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files of a project of which nothing else is there."""
    for module in ("src.base.imports", "src.plumbing.deps"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)

    def write_files(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write_files


@pytest.mark.parametrize("name", dvc_files.modules(ROOT))
def test_a_stage_declares_what_its_code_imports_and_reads(name: str) -> None:
    entry = dvc_files.stage_entry(name, params.load(ROOT), ROOT)
    module = dvc_files.module_of(entry.cmd)
    advice = "`python -m src.deps` brings dvc.yaml up to date"
    assert [dep for dep in entry.deps if dep.startswith("src/")] == deps.code_of(module), advice
    assert list(entry.params) == deps.params_of(module), advice
    assert list(entry.versions) == deps.versions_of(module), advice


def test_the_page_of_the_params_is_current_and_has_every_key() -> None:
    page = (ROOT / "docs/reference/params.md").read_text()
    assert page == tool.with_tables(page), "`python -m src.deps` writes it"
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert rows == list(SCHEMA)


def test_every_form_of_import_is_seen(write: Write) -> None:
    """In functions, of packages on the way, relative ones, and parts of each kind of sample."""
    leaves = ("inner/beside", "inner/above", "by_from", "images/part", "no_part", "typed")
    files = {f"src/{name}.py": "NUMBER = 1\n" for name in leaves} | {
        "src/inner/__init__.py": "from . import beside\n",
        "src/inner/deeper/__init__.py": '"""A docstring alone."""\n',
        "src/inner/deeper/start.py": (
            "import src.by_name\nfrom ..above import NUMBER\nfrom ... import top\n"
            "def inside():\n    from .neighbour import NUMBER\n"
        ),
        "src/inner/deeper/neighbour.py": "kind_part(kind_of(meta), 'part')\n",
        "src/by_name.py": "from src import by_from\n",
        "src/top.py": "if TYPE_CHECKING:\n    import src.typed\nimport src.plumbing.stage\n",
        "src/plumbing/stage.py": "import src.no_part\n",
    }
    write(files)
    outside = {"no_part.py", "typed.py", "plumbing/stage.py", "inner/deeper/__init__.py"}
    assert files_of("src.inner.deeper.start") == set(files) - {f"src/{name}" for name in outside}


@pytest.mark.parametrize(
    "line",
    [
        "params[name]",
        "params[f'prepare.{name}']",
        "stage.params[name]",
        "params.get('lr')",
        "stage.params.items()",
        "dict(params)",
        "{**params, 'seed': 1}",
        "build(**params)",
        "build(values=params)",
        "[params[key] for key in params]",
        "'lr' in params",
        "values = stage.params",
        "params, other = stage.params, 1",
        "params['nosuch']",
        "kind_part(kind, part)",
        "FIXED = {**OTHERS}",
        "FIXED = OTHERS",
        "def",
    ],
)
def test_what_would_have_to_be_guessed_is_an_error(write: Write, line: str) -> None:
    write({"src/train.py": f"'''Reads lr.'''\nparams['lr']\n{line}\n"})
    with pytest.raises(InputError) as caught:
        deps.params_of("src.train")
    assert str(caught.value).startswith("src/train.py:3: ")
    assert "\n" not in str(caught.value)


def test_params_go_through_the_code_under_their_name(write: Write) -> None:
    """What a module fixes for its stage, and `machine.*`, are no params of the stage."""
    code = """
        from src.plumbing import params as values
        from src import part
        FIXED = {"compile": "none", "patience": 3}
        class Kept:
            def __init__(self, params: Mapping) -> None:
                self.params = params
        def main(stage):
            params = stage.params
            Kept(params).params["epochs"]
            build(ChainMap(FIXED, params), params=params)
            f"{params['prepare.size']} {params['machine.device']} {params['compile']}"
            return params
    """
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    write({"src/train.py": "\n".join(lines), "src/part.py": "x = stage.params['seed']\n"})
    assert deps.params_of("src.train") == ["seed", "epochs", "prepare.size"]


def test_all_that_is_not_read_from_the_code_stays_in_dvc_yaml() -> None:
    """Comments, other deps, and stages that run something else, whatever they look like."""
    sixth = "  own:\n    cmd: python src/table.py\n    deps: [src/table.py]\n    params: [lr]\n"
    said = "      # of the net alone\n      - lr  # tuned\n"
    expected = PIPELINE.replace("\n  train:\n", f"\n{sixth}\n  train:\n")
    expected = expected.replace("      - lr\n", said)
    edited = expected.replace("      - seed\n", "").replace("      - src/train.py\n", "")
    edited = edited.replace("      - src/base/files.py\n", "      - src/gone.py\n")
    edited = edited.replace("      - epochs\n", "      - epochs\n\n      - evaluate.flip\n")
    assert edited.count("src/gone.py") > 2
    assert deps.rewrite(edited) == expected
    assert "verdict.json  # the gate" in expected


def test_a_stage_of_ones_own_is_declared_like_the_others(write: Write) -> None:
    """Whatever it is called; lists that it does not have yet are made."""
    write(
        {
            "src/reports/words.py": "def write(params):\n    return params['seed']\n",
            "src/report.py": "from src.reports.words import write\nwrite(stage.params)\n",
            "src/plain.py": "print()\n",
            "requirements/versions.yaml": "numpy: '2'\n",
        }
    )
    head = "stages:\n  final-report:\n    cmd: >-\n      python -m src.report\n"
    outs = "    outs:\n      - report.json\n"
    code = "      - src/report.py\n      - src/reports/words.py\n"
    plain = "  plain:\n    cmd: python -m src.plain\n"
    expected = (
        f"{head}    params:\n      - seed\n    deps:\n      - models/model.json\n{code}{outs}"
        f"{plain}    deps:\n      - src/plain.py\n"
    )
    given = f"{head}    deps:\n      - models/model.json\n{outs}{plain}"
    assert deps.rewrite(given) == expected
    assert deps.rewrite(expected) == expected
    with pytest.raises(InputError, match=r"stage final-report uses src/report.py, which is none"):
        deps.require_declared(given)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stages:", "stags:", "dvc.yaml: no readable stages ('stages')"),
        (
            "    params:\n      - subset.seed\n",
            "    params: [subset.seed]\n    outs:\n",
            "dvc.yaml: stage subset needs a list `params` with an item on each line",
        ),
    ],
)
def test_a_pipeline_in_another_form_is_refused(old: str, new: str, said: str) -> None:
    assert old in PIPELINE
    with pytest.raises(InputError) as caught:
        deps.rewrite(PIPELINE.replace(old, new))
    assert str(caught.value) == said


def test_code_that_is_no_dependency_is_refused() -> None:
    deps.require_declared(PIPELINE)
    others = (
        "stages:\n  own:\n    cmd: [python -m src.table, 'true']\n"
        "  many:\n    foreach: [1]\n    do: {cmd: python -m src.where}\n"
    )
    deps.require_declared(PIPELINE.replace("stages:\n", others))
    said = r"stage \S+ uses src/train\S+, .*python -m src\.deps"
    for line in ("      - src/train.py\n", "      - src/training\n"):
        assert line in PIPELINE
        with pytest.raises(InputError, match=said):
            deps.require_declared(PIPELINE.replace(line, ""))


def test_a_parameter_costs_three_places(project: Path) -> None:
    """Its line in params.yaml, its type in the schema, and the code that reads it."""

    def replace(name: str, old: str, new: str) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))

    page = project / "docs/reference/params.md"
    page.parent.mkdir(parents=True)
    page.touch()
    pipeline = (project / "dvc.yaml").read_text()
    line = "  val_per_class:"
    replace("params.yaml", line, f"  most: 9  # integer >= 1: a test\n{line}")
    line = '    "subset.val'
    replace("src/plumbing/schema.py", line, f'    "subset.most": integer(1),\n{line}')
    replace("src/subset.py", '"subset.seed"]', '"subset.seed"] + stage.params["subset.most"]')
    assert python(project, "-m", "src.deps").stderr == ""
    line = "      - subset.val_per_class\n"
    expected = pipeline.replace(line, f"      - subset.most\n{line}")
    assert (project / "dvc.yaml").read_text() == expected
    assert "| `subset.most` | integer >= 1 | a test |\n" in page.read_text()
    ended = python(project, "-m", "src.mlproject", "--subset.most", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "params.yaml: subset.most must be an integer >= 1, got '0'\n"
    replace("src/subset.py", '["subset.most"]', "[OUT.name]")
    ended = python(project, "-m", "src.deps")
    assert ended.returncode == 2
    assert ended.stderr.startswith("src/subset.py:")
    assert ended.stderr.count("\n") == 1
    assert (project / "dvc.yaml").read_text() == expected
