"""An ONNX graph, a TorchScript program and a model server give MONAI's labels, and are trusted no further than that."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipelines import bundles, catalog, confinement, engines, ladder, models, trust
from pipelines.engines import EngineFailed, kserve
from pipelines.trust import AllowList, Untrusted
from tests.bundles import toys
from tests.bundles.test_labels_are_monais import CHAINS, NAMES, agree
from tests.bundles.toys import UNET

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*tracer:torch.jit.TracerWarning"),
]
ROI = (1, 1, *toys.TILES["roi_size"])


def toy(folder: Path) -> Path:
    before, after = CHAINS["spleen"]
    return toys.save(folder, toys.config(UNET, before, after), toys.metadata(NAMES), gain=3)


def network_of(folder: Path) -> nn.Module:
    network = toys.built(folder).eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    return network


def peer(folder: Path, where: Path) -> Any:
    """MONAI's labels on the weights of the bundle, (slice, row, column)."""
    return toys.back(toys.monai_run(folder, toys.nifti(toys.volume(), where / "image.nii"))["pred"])[0]


def without_weights(folder: Path) -> Path:
    """The bundle with neither its table of weights nor the definition of its network."""
    (folder / "models" / "model.pt").unlink()
    path = folder / "configs" / "inference.json"
    written = json.loads(path.read_text())
    del written["network_def"]
    path.write_text(json.dumps(written))
    return folder


# ---------------------------------------------------------------- ONNX


def exported(folder: Path, *, axes: dict[str, dict[int, str]] | None = None) -> Path:
    """The bundle with its network as a graph instead."""
    network, path = network_of(folder), folder / "models" / "model.onnx"
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["pred"]}
    torch.onnx.export(network, (torch.zeros(ROI),), str(path), dynamo=False, dynamic_axes=axes or {}, **names)
    return without_weights(folder)


FREE = {"image": {0: "n", 2: "x", 3: "y", 4: "z"}, "pred": {0: "n", 2: "x", 3: "y", 4: "z"}}


@pytest.mark.parametrize("axes", [None, FREE], ids=["one tile at a time", "free axes"])
def test_a_graph_gives_monais_labels_and_the_report_says_what_computed_it(
    axes: dict[str, dict[int, str]] | None, tmp_path: Path
) -> None:
    folder = toy(tmp_path / "toy")
    labels = peer(folder, tmp_path)
    findings = toys.run(exported(folder, axes=axes), toys.volume())
    agree(findings, labels, NAMES)
    assert dict(findings.algorithm.parameters)["network"].startswith("ONNX, computed by onnxruntime")


def graph(folder: Path, change: Callable[[Any], None]) -> Path:
    """The bundle with a small graph of one convolution, changed."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones((3, 1, 1, 1, 1), np.float32), "w")
    made = make.make_model(
        make.make_graph(
            [make.make_node("Conv", ["image", "w"], ["pred"])],
            "net",
            [make.make_tensor_value_info("image", kind, ["n", 1, "x", "y", "z"])],
            [make.make_tensor_value_info("pred", kind, ["n", 3, "x", "y", "z"])],
            [weight],
        ),
        opset_imports=[make.make_opsetid("", 17)],
        ir_version=9,
    )
    change(made)
    (folder / "models" / "model.onnx").write_bytes(made.SerializeToString())
    return without_weights(folder)


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../../../etc/passwd", 0, 12)
    tensor.data_location = onnx.TensorProto.EXTERNAL


def outside_in_a_branch(model: Any) -> None:
    branch = onnx.GraphProto(name="branch")
    branch.initializer.add().CopyFrom(model.graph.initializer[0])
    branch.initializer[0].external_data.add(key="location", value="/etc/passwd")
    node = model.graph.node.add(op_type="If", input=["image"], output=["x"])
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH, g=branch)


def strange(model: Any) -> None:
    model.graph.node[0].domain = "ai.example"


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "tensors in another file": (outside, "keeps tensors in other files"),
    "such tensors within a node": (outside_in_a_branch, "keeps tensors in other files"),
    "an operator of somebody's library": (strange, "does not bring"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_graph_that_reaches_out_is_refused_unread(trick: str, tmp_path: Path) -> None:
    change, reason = HOSTILE[trick]
    folder = graph(toy(tmp_path / "toy"), change)
    with pytest.raises(Untrusted, match=reason):
        bundles.read(folder)


def test_what_is_no_graph_or_takes_no_image_is_refused(tmp_path: Path) -> None:
    folder = graph(toy(tmp_path / "toy"), lambda model: model.graph.input.add().CopyFrom(model.graph.input[0]))
    with pytest.raises(Untrusted):
        models.add(folder, tmp_path / "installed")
    (folder / "models" / "model.onnx").write_bytes(b"\xff\xff text")
    with pytest.raises(Untrusted, match="no ONNX graph"):
        bundles.read(folder)


def test_a_graph_whose_tiles_are_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = exported(toy(tmp_path / "toy"))
    path = folder / "configs" / "inference.json"
    written = json.loads(path.read_text())
    written["inferer"]["roi_size"] = [16, 16, 16]
    path.write_text(json.dumps(written))
    with pytest.raises(Untrusted, match=r"takes images of \(32, 32, 16\) voxels"):
        toys.run(folder, toys.volume())


def test_two_networks_in_one_bundle_are_refused(tmp_path: Path) -> None:
    folder = graph(toy(tmp_path / "toy"), lambda model: None)
    (folder / "models" / "kserve.json").write_text('{"model": "a", "version": "1"}')
    with pytest.raises(Untrusted, match=r"several networks: .*kserve\.json"):
        bundles.read(folder)


def test_a_network_of_one_size_is_not_asked_for_smaller_tiles() -> None:
    class Full:
        tile = (32, 32, 16)

        def to(self, device: str) -> "Full":
            return self

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            assert tuple(images.shape[2:]) == self.tile
            raise MemoryError("out of memory")

    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(roi_size=(32, 32, 16), overlap=0.25)
    with pytest.raises(ladder.OutOfMemory):
        ladder.through(torch.zeros(1, 40, 40, 20), Full(), inferer, device="cpu")


# ---------------------------------------------------------------- TorchScript


def compiled(folder: Path) -> Path:
    torch.jit.trace(network_of(folder), torch.zeros(ROI)).save(folder / "models" / "model.ts")
    return without_weights(folder)


def test_a_program_is_code_and_waits_for_a_signature(tmp_path: Path) -> None:
    folder = compiled(toy(tmp_path / "toy"))
    with pytest.raises(Untrusted, match=r"compiled program .*have an administrator sign for its digest"):
        bundles.read(folder)
    found = engines.of(folder)
    assert found is not None
    with pytest.raises(Untrusted, match="which is code"):
        found[0].network(found[1], "cpu")


@pytest.mark.long
def test_a_signed_program_gives_monais_labels_from_its_own_process(tmp_path: Path) -> None:
    fault = confinement.why_not()
    if fault is not None:
        pytest.skip(f"code cannot be isolated here: {fault}")
    folder = toy(tmp_path / "toy")
    labels = peer(folder, tmp_path)
    compiled(folder)
    bundle = bundles.read(folder, allowed=AllowList(frozenset({trust.digest(folder)})))
    assert bundle.isolated
    agree(bundles.pipeline(bundle).runner(toys.volume(), bundles.BundleSettings()), labels, NAMES)


# ---------------------------------------------------------------- a model server


class Server:
    """A model server of the protocol, with one network; `seen` are the names that it was asked for."""

    def __init__(self, network: nn.Module, *, binary: bool) -> None:
        self.network, self.binary, self.seen = network, binary, list[str]()
        self.spoil: Callable[[dict[str, Any]], Any] = lambda answer: None
        self.kind = "FP32"

    def app(self) -> Any:
        from fastapi import FastAPI, Request, Response
        from fastapi.responses import JSONResponse

        app = FastAPI()

        @app.get("/v2")
        def server() -> Any:
            return {"name": "toy", "version": "1", "extensions": ["binary_tensor_data"] if self.binary else []}

        @app.get("/v2/models/{model}/versions/{version}")
        def model(model: str, version: str) -> Any:
            self.seen.append(f"{model} {version}")
            if model != "toy":
                return JSONResponse({"error": f"there is no {model}"}, status_code=404)
            image = {"name": "x", "datatype": self.kind, "shape": [-1, 1, -1, -1, -1]}
            return {
                "name": "toy",
                "inputs": [image],
                "outputs": [{**image, "name": "other"}, {**image, "name": "pred"}],
            }

        @app.post("/v2/models/toy/versions/{version}/infer")
        async def infer(request: Request) -> Any:
            content, size = await request.body(), request.headers.get("inference-header-content-length")
            assert (size is not None) == self.binary
            asked = json.loads(content[: int(size)] if size else content)
            (given,) = asked["inputs"]
            values = np.frombuffer(content[int(size) :], "<f4") if size else np.array(given["data"], "<f4")
            with torch.inference_mode():
                found = self.network(torch.from_numpy(values.reshape(given["shape"]).copy())).numpy()
            output: dict[str, Any] = {"name": "pred", "datatype": "FP32", "shape": list(found.shape)}
            answer = {"model_name": "toy", "outputs": [output]}
            if not self.binary:
                output["data"] = found.ravel().tolist()
                self.spoil(answer)
                return answer
            output["parameters"] = {"binary_data_size": found.nbytes}
            self.spoil(answer)
            head = json.dumps(answer).encode()
            return Response(head + found.tobytes(), headers={"Inference-Header-Content-Length": str(len(head))})

        return app


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """The server on loopback, known to the node."""
    import uvicorn

    config = uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="error", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    catalog.look_in(None, server=f"http://127.0.0.1:{port}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        catalog.look_in(None)
        running.should_exit = True
        thread.join(60)


def served(folder: Path, **said: str) -> Path:
    (folder / "models" / "kserve.json").write_text(json.dumps({"model": "toy", "version": "3", **said}))
    return without_weights(folder)


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_a_network_on_a_model_server_gives_monais_labels(binary: bool, tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    labels, server = peer(folder, tmp_path), Server(network_of(folder), binary=binary)
    with serving(server):
        findings = toys.run(served(folder), toys.volume())
    agree(findings, labels, NAMES)
    assert server.seen == ["toy 3"]
    assert "model toy, version 3" in dict(findings.algorithm.parameters)["network"]


class Nowhere(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 0


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another batch": (lambda a: a["outputs"][0].update(shape=[1, 3, 2, 2, 2], data=[0.0] * 24), "another batch"),
    "another output": (lambda a: a["outputs"][0].update(name="other"), "no pred"),
    "too few values": (lambda a: a["outputs"][0].update(data=[0.0]), "cannot be read"),
    "an unknown type": (lambda a: a["outputs"][0].update(datatype="BF16"), "cannot be read"),
}


def test_an_answer_that_does_not_fit_is_none_and_is_tried_again(tmp_path: Path) -> None:
    folder = toy(tmp_path / "toy")
    server = Server(network_of(folder), binary=False)
    with serving(server) as url:
        network = kserve.Served(url, "toy", "3")
        for spoil, reason in FAULTS.values():
            server.spoil = spoil
            with pytest.raises(EngineFailed, match=reason) as failed:
                network(torch.zeros(2, 1, 16, 16, 16))
            assert failed.value.retryable
        with pytest.raises(EngineFailed, match="HTTP 404"):
            kserve.Served(url, "another", "1")
        server.kind = "BYTES"
        with pytest.raises(Untrusted, match="one image of floats"):
            kserve.Served(url, "toy", "3")
    with (
        serving(Server(Nowhere(), binary=True)) as url,
        pytest.raises(EngineFailed, match="what is no number"),
    ):
        kserve.Served(url, "toy", "3")(torch.zeros(2, 1, 16, 16, 16))
    with pytest.raises(EngineFailed, match="ConnectError"):
        kserve.Served(url, "toy", "3")


def test_a_bundle_does_not_say_where_its_server_is(tmp_path: Path) -> None:
    folder = served(toy(tmp_path / "toy"), url="http://elsewhere.example")
    with pytest.raises(Untrusted, match="does not name a model and its version"):
        bundles.read(folder)
    (folder / "models" / "kserve.json").write_text(json.dumps({"model": "../../x", "version": "1"}))
    with pytest.raises(Untrusted, match="does not name a model and its version"):
        bundles.read(folder)
    (folder / "models" / "kserve.json").write_text(json.dumps({"model": "toy", "version": "1"}))
    with pytest.raises(Untrusted, match="this node knows none"):
        toys.run(folder, toys.volume())
