"""torch without its compiler until somebody asks for it: that is 700 modules and 2 s of CPU.

torch itself imports `torch._dynamo` at its first use (`torch.__getattr__`), but torchvision, timm
and the optimizers of torch use it at once, for what does nothing unless a net is compiled. Here
that is answered by a stand-in. Any other use (`torch.compile`, `torch.export`, an import of it or
of a module below it) brings the real one, which then stands in its place.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

DYNAMO, UTILS = "torch._dynamo", "torch._dynamo.utils"


def defer_compiler() -> None:
    """Let the compiler wait until it is used; nothing if it is imported already. Call before
    torchvision or timm is imported, of which it is the larger part."""
    if DYNAMO in sys.modules:
        return
    waiting, utils = _Waiting(DYNAMO), _Waiting(UTILS)
    # What torch.optim, timm.optim.kron and torchvision.ops.roi_align use.
    waiting.graph_break = lambda msg="": None  # type: ignore[attr-defined]
    waiting.disable = _disable  # type: ignore[attr-defined]
    waiting.config = SimpleNamespace()  # type: ignore[attr-defined]
    waiting.__path__ = []
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {DYNAMO: waiting, UTILS: utils}
    sys.meta_path.insert(0, _Finder())


def set_deterministic(mode: bool, warn_only: bool) -> None:
    """torch.use_deterministic_algorithms, which also tells the compiler, and imports it for that:
    one that waits is told when it comes."""
    import torch

    if isinstance(sys.modules.get(DYNAMO), _Waiting):
        torch.set_deterministic_debug_mode(1 + (not warn_only) if mode else 0)
    else:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)


@contextmanager
def absent(module: str) -> Iterator[None]:
    """In the block an import of `module` fails, unless it is imported already: for packages that
    can do without what they take long to import."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's way to say so
    try:
        yield
    finally:
        del sys.modules[module]


class _Waiting(ModuleType):
    """Stands in for a module of the compiler; for a name that it has not, the real one is asked."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system looks for
            raise AttributeError(name)
        _bring()
        return getattr(importlib.import_module(self.__name__), name)


class _Finder:
    """Brings the real compiler where a module below it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{DYNAMO}.") or not _bring() or name not in sys.modules:
            return None
        module = sys.modules[name]  # it came with the others, and must not run a second time
        # For a module that came meanwhile the import system takes its own spec, not a finder's.
        module.__spec__ = ModuleSpec(name, _Loaded(module))  # type: ignore[arg-type]
        return module.__spec__


class _Loaded:
    """Loads a module that is there."""

    def __init__(self, module: ModuleType):
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def _bring() -> bool:
    """Put the real compiler in the place of the stand-ins; whether they were still there."""
    waiting = sys.modules.get(DYNAMO)
    if not isinstance(waiting, _Waiting):
        return False
    import torch

    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
    del sys.modules[DYNAMO], sys.modules[UTILS]
    real = importlib.import_module(DYNAMO)
    for name, value in vars(waiting.config).items():
        setattr(real.config, name, value)
    set_deterministic(
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    return True


def _disable(function: Callable[..., Any], *given: Any, **named: Any) -> Callable[..., Any]:
    """`torch._dynamo.disable`, which has nothing to keep out as long as nothing is compiled."""

    def call(*args: Any, **kwargs: Any) -> Any:
        dynamo = sys.modules[DYNAMO]
        if isinstance(dynamo, _Waiting):
            return function(*args, **kwargs)
        return dynamo.disable(function, *given, **named)(*args, **kwargs)

    return call


def _is_compile_supported(device_type: Any) -> Any:
    _bring()
    return sys.modules[UTILS].is_compile_supported(device_type)
