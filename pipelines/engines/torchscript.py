"""TorchScript: the network as a compiled program, `models/*.ts`, as bundles of the Model Zoo have it.

A program is code: it runs when an administrator has signed for the bundle, in a process without network and files
(`pipelines.isolated`), and nowhere else.
"""

from pathlib import Path
from typing import Any

from pipelines import confinement
from pipelines.trust import Untrusted

PATTERN = "*.ts"
REMEDY = "Add models/model.safetensors or an ONNX graph, or have the bundle signed for isolation"


def check(path: Path) -> None:
    """Refuses every program: what makes an exception is the administrator's signature, not what it looks like.

    Raises:  Untrusted
    """
    raise Untrusted(f"{path.name} is a compiled program (TorchScript), which is code", remedy=REMEDY)


def network(path: Path, device: str) -> Any:
    """The program, loaded on this device.

    Raises:  Untrusted when this process is not walled in, or the file is no program
    """
    import torch

    if not confinement.is_confined():
        check(path)
    load: Any = torch.jit.load
    try:
        loaded = load(str(path), map_location=device)
    except (RuntimeError, ValueError) as broken:
        what = f"{path.name} is no TorchScript program: {str(broken).splitlines()[0][:200]}"
        raise Untrusted(what, remedy="Save it again with torch.jit.save") from None
    return loaded.eval()
