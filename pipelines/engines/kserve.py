"""KServe v2: the network on a model server (Triton, OpenVINO, MLServer, KServe), `models/kserve.json`, by HTTP.

The file says which model and which version, `{"model": "spleen", "version": "1"}`; where the server is, the site says
(`inference.model_server`), so that a bundle cannot send pixels to whom it likes. Tiles leave the machine, values as the
network sees them and nothing of the headers; the chain before and after it runs here. Tensors travel as bytes where the
server has the binary extension, else as JSON.

Source:  Open Inference Protocol v2 (REST); Triton's binary tensor data extension
"""

from __future__ import annotations

import json
import os
import re
import weakref
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engines import EngineFailed
from pipelines.trust import Untrusted

if TYPE_CHECKING:
    import httpx
    from torch import Tensor

PATTERN = "kserve.json"
SERVER = "ISOCENTER_MODEL_SERVER"
"""Environment variable with the server's address, which `catalog.look_in` sets."""
TYPES = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
LENGTH = "Inference-Header-Content-Length"
CONNECT_S, ANSWER_S = 10.0, 300.0
LARGEST = 64 << 10


def check(path: Path) -> None:
    """Refuses a file that is not a model's name and version.

    Raises:  Untrusted
    """
    _named(path)


def _named(path: Path) -> tuple[str, str]:
    try:
        said = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= LARGEST else None
    except (OSError, ValueError, RecursionError):
        said = None
    named = isinstance(said, dict) and set(said) == {"model", "version"}
    if said is None or not named or not all(isinstance(one, str) and NAME.fullmatch(one) for one in said.values()):
        raise Untrusted(
            f"{path.name} does not name a model and its version",
            remedy='Write {"model": "NAME", "version": "1"}; the server is inference.model_server of the node',
        )
    return said["model"], said["version"]


def network(path: Path, device: str) -> Served:
    """The model on the site's server, which must be ready.

    Raises:  Untrusted, EngineFailed
    """
    url = os.environ.get(SERVER)
    if not url:
        raise Untrusted(
            "the bundle's network is on a model server, and this node knows none",
            remedy="Set inference.model_server in isocenter.yaml",
        )
    return Served(url, *_named(path))


class Served:
    """A model of a server as a network: a batch of images in, the answer of its output `pred`, or of its first one."""

    def __init__(self, url: str, model: str, version: str) -> None:
        import httpx

        self.place = f"v2/models/{model}/versions/{version}"
        self.said = f"KServe v2: model {model}, version {version}, on the site's model server"
        self.client = httpx.Client(
            base_url=url.rstrip("/") + "/", timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), follow_redirects=False
        )
        weakref.finalize(self, self.client.close)  # a network that leaves memory leaves no connection open
        extensions = self._asked("GET", "v2").json().get("extensions", ())
        self.binary = any("binary_tensor_data" in str(one) for one in extensions)
        described = self._asked("GET", self.place).json()
        images, answers = described.get("inputs", ()), described.get("outputs", ())
        if len(images) != 1 or images[0].get("datatype") not in TYPES or not answers:
            raise Untrusted(
                f"the model {model} does not take one image of floats", remedy="Serve a network that takes one batch"
            )
        self.input, self.kind = str(images[0]["name"]), str(images[0]["datatype"])
        names = [str(one["name"]) for one in answers]
        self.output = "pred" if "pred" in names else names[0]

    def to(self, device: str) -> Served:
        """Itself: it computes elsewhere."""
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """The answer for a batch.

        Shapes:  (n, channel, x, y[, z]) -> (n, class, x, y[, z]), or (n, class)
        Raises:  EngineFailed
        """
        import numpy as np
        import torch

        values = np.ascontiguousarray(images.detach().cpu().numpy(), TYPES[self.kind])
        tensor: dict[str, Any] = {"name": self.input, "shape": list(values.shape), "datatype": self.kind}
        wanted: dict[str, Any] = {"name": self.output}
        if self.binary:
            tensor["parameters"] = {"binary_data_size": values.nbytes}
            wanted["parameters"] = {"binary_data": True}
        else:
            tensor["data"] = values.ravel().tolist()
        head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        content, headers = head, {"Content-Type": "application/json"}
        if self.binary:
            content = head + values.tobytes()
            headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
        answer = self._asked("POST", f"{self.place}/infer", content=content, headers=headers)
        found = self._values(answer)
        if len(found) != len(values) or not np.isfinite(found).all():
            raise self._unfit("its answer is of another batch, or holds what is no number")
        return torch.from_numpy(found).to(images.device)

    def _values(self, answer: httpx.Response) -> Any:
        """The output's values."""
        import numpy as np

        content = answer.content
        size = answer.headers.get(LENGTH)
        try:
            head = json.loads(content[: int(size)] if size else content)
            at = int(size) if size else 0
            for one in head["outputs"]:
                shape, kind = [int(n) for n in one["shape"]], TYPES[one["datatype"]]
                length = int(one.get("parameters", {}).get("binary_data_size", 0))
                if one["name"] != self.output:
                    at += length
                elif length:
                    return np.frombuffer(content, kind, prod(shape), at).reshape(shape).astype(np.float32)
                else:
                    return np.array(one["data"], kind).reshape(shape).astype(np.float32)
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise self._unfit(f"its answer cannot be read: {type(broken).__name__}") from None
        raise self._unfit(f"its answer has no {self.output}")

    def _asked(self, method: str, place: str, **more: Any) -> httpx.Response:
        """What the server answers.

        Raises:  EngineFailed
        """
        import httpx

        try:
            answer = self.client.request(method, place, **more)
        except httpx.HTTPError as failed:
            raise self._unfit(f"{type(failed).__name__} at {place}") from None
        if answer.status_code != httpx.codes.OK:
            raise self._unfit(f"HTTP {answer.status_code} at {place}: {answer.text[:200]}")
        return answer

    def _unfit(self, why: str) -> EngineFailed:
        return EngineFailed(
            f"the model server did not answer as it should: {why}",
            remedy="See inference.model_server, the server's log, and whether the model of this version is loaded",
        )
