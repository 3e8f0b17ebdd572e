"""Fetch pretrained weights once: `python -m src.weights MODEL` -> data/weights/MODEL.safetensors.

MODEL is a name of timm (`resnet18`, or with a tag `resnet18.a1_in1k`) or `torchvision:<name>`. No
stage opens a network connection: what is fetched here goes into DVC, and `weights` names it.
"""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.model.nets.names import TORCHVISION
from src.plumbing import command, workspace
from src.plumbing.errors import GateError, InputError

if TYPE_CHECKING:
    import torch

FOLDER = Path("data/weights")


def fetch(model: str, force: bool = False) -> Path:
    """The weights file of a model, fetched unless it is there already. InputError for a model that
    is unknown or has no pretrained weights, GateError when they cannot be fetched."""
    from src.model.nets.pretrained import published
    from src.model.nets.torchvision_models import fetch_tensors, require_known
    from src.model.nets.weights_file import write_weights

    path = FOLDER / f"{model.replace(':', '_')}.safetensors"
    name = model.removeprefix(TORCHVISION)
    if name != model:
        require_known(name, "MODEL")
    else:
        _require_pretrained(model)
    if path.exists() and not force:
        print(f"weights: {path} is there already; --force fetches it again")
        return path
    about = published(model)
    assert about is not None
    if name != model:
        with _fetching(about["source"]):
            tensors = fetch_tensors(name, sys.stderr.isatty())
    else:
        tensors, about["source"] = _from_timm(model)
    write_weights(path, tensors, about)
    count = sum(value.numel() for value in tensors.values())
    terms = f", license {about['license']}" if about.get("license") else ""
    print(f"weights: {path}, {count / 1e6:.1f} M numbers, from {about['source']}{terms}")
    return path


def _require_pretrained(model: str) -> None:
    """InputError unless `model` is a timm name, or one with a tag, of which there are weights."""
    import timm

    from src.model.nets.timm_models import require_timm_name

    require_timm_name(model, "MODEL")
    config = timm.get_pretrained_cfg(model)
    if config is not None and (config.hf_hub_id or config.url):
        return
    name = model.partition(".")[0]
    if known := timm.list_pretrained(f"{name}.*"):
        raise InputError(f"{model} has no pretrained weights: use one of {', '.join(known[:10])}")
    family = timm.list_pretrained(f"{name.split('_')[0]}*")
    also = f": use one of {', '.join(family[:5])}, ..." if family else ""
    raise InputError(f"{model} has no pretrained weights{also}")


def _from_timm(model: str) -> "tuple[dict[str, torch.Tensor], str]":
    """The tensors by timm's names of today, and the address that they come from."""
    import timm
    from safetensors import SafetensorError
    from torch.hub import load_state_dict_from_url

    config = timm.get_pretrained_cfg(model)
    assert config is not None
    overlay: dict[str, Any]
    if config.hf_hub_id:
        source = f"https://huggingface.co/{config.hf_hub_id}"
        overlay = {"file": str(_from_hub(config.hf_hub_id, config.hf_hub_filename))}
    else:
        assert isinstance(config.url, str)
        source = config.url
        with _fetching(source):
            state = load_state_dict_from_url(
                source, map_location="cpu", progress=sys.stderr.isatty(), weights_only=True
            )
        overlay = {"state_dict": state}
    try:
        net = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, SafetensorError, KeyError) as error:
        reason = " ".join(str(error).split())[:150]
        raise GateError(f"what {source} holds does not fit {model} ({reason})") from None
    return net.state_dict(), source


def _from_hub(repository: str, filename: str | None) -> Path:
    """A safetensors file of the Hugging Face hub (HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE count),
    through the cache of its own client. Never another kind, which could hold a program."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    huggingface_hub.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    repository, _, revision = repository.partition("@")
    filename = (filename or "model.bin").rpartition(".")[0] + ".safetensors"
    options: dict[str, Any] = {"revision": revision or None}
    address = huggingface_hub.hf_hub_url(repository, filename, **options)
    print(f"weights: fetching {address}", flush=True)
    try:
        if not huggingface_hub.try_to_load_from_cache(repository, filename, **options):
            # Says at once what is wrong; the download tries again and again for half a minute.
            huggingface_hub.get_hf_file_metadata(address)
        return Path(huggingface_hub.hf_hub_download(repository, filename, **options))
    except Exception as error:  # of the client, of its HTTP library, of the file system
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise InputError(
                f"{address} does not exist, and other kinds of files are not loaded, since they "
                "could hold a program: use another model or tag"
            ) from None
        raise _not_fetched(address, error) from None


@contextmanager
def _fetching(url: str) -> Iterator[None]:
    """GateError, in one line, for whatever keeps torch from fetching tensors from `url`."""
    print(f"weights: fetching {url}", flush=True)
    try:
        yield
    except pickle.UnpicklingError:
        raise GateError(f"{url} holds more than tensors, which is not loaded") from None
    except (OSError, RuntimeError) as error:
        raise _not_fetched(url, error) from None


def _not_fetched(address: str, error: Exception) -> GateError:
    # The hub's client names the trouble with the connection in the cause alone.
    reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return GateError(f"{address} cannot be fetched ({reason[:150]}): is there a network?")


def next_steps(model: str, path: Path) -> str:
    """The commands that put the file into DVC and train from it."""
    from src.model.nets.pretrained import settings
    from src.model.nets.weights_file import read_metadata

    values = {"model": model, "weights": path.as_posix()}
    values |= {f"prepare.{key}": v for key, v in settings(read_metadata(path) or {}).items()}
    options = " ".join(f"-S {key}={value}" for key, value in values.items())
    return (
        "next:\n"
        f"  dvc add {path.as_posix()}\n"
        f"  git add {path.as_posix()}.dvc {path.parent.as_posix()}/.gitignore\n"
        f"  git commit -m 'Weights of {model}'\n"
        f"  dvc exp run {options}"
    )


def main() -> None:
    """The command line."""
    parser = command.parser("weights", __doc__)
    parser.add_argument("model", metavar="MODEL", help="a name of timm, or torchvision:<name>")
    parser.add_argument("--force", action="store_true", help="fetch it again if it is there")
    arguments = parser.parse_args()
    workspace.require_project()
    print(next_steps(arguments.model, fetch(arguments.model, arguments.force)))


if __name__ == "__main__":
    sys.exit(command.guarded(main))
