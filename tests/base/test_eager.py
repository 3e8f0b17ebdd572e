"""The compiler of torch waits until it is used, and is the real one then."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL, copy_project, packed, set_params

WITHOUT = """
import sys
from src.base.eager import defer_compiler
defer_compiler()
import torch
from src.model.device import prepare_device
prepare_device("cpu", 1, "warn")
import src.training.learner

net = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(net.parameters())

def step():
    before = net.weight.detach().clone()
    optimizer.zero_grad()
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert not torch.equal(net.weight, before)

step()
assert torch.are_deterministic_algorithms_enabled()
assert torch.is_deterministic_algorithms_warn_only_enabled()
assert not {"torch._dynamo.eval_frame", "torch._inductor", "sympy"} & sys.modules.keys()
"""

# The ways in which it is asked for: by name, a module below it, a name in it.
USES = {
    "compile": "assert torch.compile(net, backend='eager')(torch.ones(1, 2)).shape == (1, 2)",
    "module below": """
import torch._dynamo.eval_frame as found
assert found is sys.modules["torch._dynamo"].eval_frame is torch._dynamo.eval_frame
assert found.__spec__.origin == found.__file__
assert torch._dynamo.OptimizedModule is found.OptimizedModule
""",
    "name": "from torch._dynamo.utils import counters",
    "torchvision": """
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu") in (True, False)
""",
}
WITH = """
import torch._inductor.config
assert sys.modules["torch._dynamo"].__file__ and sys.modules["torch._dynamo.utils"].__file__
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.config.cache_size_limit == 1_000_000  # as timm.optim.kron wants it
assert torch._inductor.config.deterministic
step()
"""


def run(code: str, folder: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("use", USES)
def test_the_compiler_waits_and_comes_when_it_is_used(use: str) -> None:
    run(WITHOUT + USES[use] + WITH, ROOT)


@pytest.mark.slow(seconds=15)
def test_a_training_imports_no_compiler(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    set_params(project, **SMALL)
    packed(project)
    verdict = project / "results/overfit_check/verdict.json"
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"proceed": true}')
    run(
        "import atexit, runpy, sys\n"
        "names = {'torch._dynamo.eval_frame', 'torch._inductor', 'sympy'}\n"
        "atexit.register(lambda: print(names & sys.modules.keys(), file=open('imported', 'w')))\n"
        "runpy.run_module('src.train', run_name='__main__', alter_sys=True)",
        project,
    )
    assert (project / "imported").read_text() == "set()\n"
