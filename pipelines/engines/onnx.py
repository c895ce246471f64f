"""ONNX: the network as a graph of operators, `models/*.onnx`, computed by onnxruntime.

The packages are an optional extra: `pip install 'isocenter[onnx]'`.
A graph is data, not code, as long as it stays within its file and within the operators that onnxruntime brings; what
does not is refused. On a GPU it is computed there when the package `onnxruntime-gpu` is installed, else on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import runtime
from pipelines.engines import EngineFailed
from pipelines.trust import Untrusted

if TYPE_CHECKING:
    from torch import Tensor

PATTERN = "*.onnx"
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Sets of operators that onnxruntime has itself; another would need a library from elsewhere."""
TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
PROVIDERS = {"cuda": "CUDAExecutionProvider"}
MISSING = "Install it on this machine: pip install 'isocenter[onnx]'"


def check(path: Path) -> None:
    """Refuses a graph that reaches out of its file, or names operators that are not onnxruntime's own.

    Raises:  Untrusted
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise Untrusted(f"{path.name} needs the package onnx, which is not installed", remedy=MISSING) from None
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as broken:
        raise Untrusted(f"{path.name} is no ONNX graph: {str(broken)[:200]}", remedy="Export it again") from None
    for item in _inside(model.graph, *model.functions):
        if isinstance(item, onnx.TensorProto):
            if item.data_location == onnx.TensorProto.EXTERNAL or item.external_data:
                raise Untrusted(
                    f"{path.name} keeps tensors in other files", remedy="Save it as one file, its tensors within"
                )
        elif item.domain not in DOMAINS and item.domain not in {one.domain for one in model.functions}:
            raise Untrusted(
                f"{path.name} has the operator {item.domain}.{item.op_type}, which onnxruntime does not bring",
                remedy="Export it with standard operators",
            )


def _inside(*graphs: Any) -> Iterator[Any]:
    """Every tensor and every node of these graphs, or functions, and of the graphs in their nodes."""
    todo = [*graphs]
    while todo:
        graph = todo.pop()
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                yield from (part for one in (attribute.sparse_tensor, *attribute.sparse_tensors)
                            for part in (one.values, one.indices))  # fmt: skip
                todo += [attribute.g, *attribute.graphs]


def network(path: Path, device: str) -> Graph:
    """The graph, ready on this device.

    Raises:  Untrusted
    """
    return Graph(path, device)


class Graph:
    """A graph as a network: a batch of images in, the answer of its output `pred`, or of its first one."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.sessions: dict[str, Any] = {}
        session = self._session(device.partition(":")[0])
        images, answers = session.get_inputs(), [one.name for one in session.get_outputs()]
        if len(images) != 1 or images[0].type not in TYPES:
            raise Untrusted(
                f"{path.name} takes {', '.join(f'{one.name} ({one.type})' for one in images)}, not one image of floats",
                remedy="Export a network that takes one batch of images",
            )
        self.input: str = images[0].name
        self.kind = TYPES[images[0].type]
        self.output: str = "pred" if "pred" in answers else answers[0]
        self.batch, _, *tile = (size if isinstance(size, int) else None for size in images[0].shape)
        self.tile = tuple(tile)
        """Voxels that its image must have along each axis; None where any number will do."""

    @property
    def said(self) -> str:
        """How the report names it."""
        import onnxruntime

        return f"ONNX, computed by onnxruntime {onnxruntime.__version__}"

    def to(self, device: str) -> Graph:
        """Itself: it computes where its images lie."""
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """The answer for a batch.

        Shapes:  (n, channel, x, y[, z]) -> (n, class, x, y[, z]), or (n, class)
        Raises:  EngineFailed, MemoryError, Untrusted (it takes images of another size)
        """
        import numpy as np
        import torch
        from onnxruntime.capi import onnxruntime_pybind11_state as faults

        shape = tuple(images.shape[2:])
        if len(shape) != len(self.tile) or any(n not in (None, m) for n, m in zip(self.tile, shape, strict=True)):
            raise Untrusted(
                f"{self.path.name} takes images of {self.tile} voxels, the bundle's config gives {shape}",
                remedy="Give the inferer that roi_size, or export it with free axes",
            )
        session = self._session(images.device.type)
        values = images.detach().cpu().numpy().astype(self.kind, copy=False)
        some = self.batch or len(values)
        try:
            parts = [
                session.run([self.output], {self.input: values[first : first + some]})[0]
                for first in range(0, len(values), some)
            ]
        except (faults.Fail, faults.RuntimeException, faults.EPFail, faults.InvalidArgument) as failed:
            if "alloc" in str(failed).lower():
                raise MemoryError(f"out of memory: {str(failed)[:200]}") from None
            raise EngineFailed(
                f"onnxruntime could not compute {self.path.name}: {str(failed)[:300]}",
                remedy="Try the bundle with the version of onnxruntime that it was made for",
            ) from None
        return torch.from_numpy(np.concatenate(parts)).to(images.device)

    def _session(self, device: str) -> Any:
        """The graph loaded for a kind of device, once."""
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as faults
        except ImportError:
            raise Untrusted("the bundle needs the package onnxruntime", remedy=MISSING) from None
        with self.lock:
            if device not in self.sessions:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4
                options.intra_op_num_threads = runtime.cores()
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
                wanted = [PROVIDERS.get(device, ""), "CPUExecutionProvider"]
                known = onnxruntime.get_available_providers()
                try:
                    self.sessions[device] = onnxruntime.InferenceSession(
                        str(self.path), options, providers=[one for one in wanted if one in known]
                    )
                except (faults.Fail, faults.InvalidGraph, faults.InvalidProtobuf, faults.NotImplemented,
                        faults.RuntimeException, faults.InvalidArgument, faults.NoSuchFile) as unfit:  # fmt: skip
                    raise Untrusted(
                        f"onnxruntime cannot load {self.path.name}: {str(unfit)[:300]}",
                        remedy="Export it again, for the opset that this version of onnxruntime knows",
                    ) from None
            return self.sessions[device]
