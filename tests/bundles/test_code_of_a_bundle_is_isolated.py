"""Code of a bundle runs only when an administrator has signed for it, and then without network and without files."""

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import bundles, catalog, confinement, isolated, models, trust
from pipelines.bundles import BundleSettings
from pipelines.isolated import IsolatedFailed
from pipelines.spec import Cancelled, Pipeline
from pipelines.trust import AllowList, Untrusted
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, SOFTMAX, SPACE, TURN, WINDOW, inverted
from tests.conftest import REPOSITORY

OUTSIDE = "secret.txt"
ATTEMPTS = """
import ctypes, os, pathlib, signal, socket

def attempts(port, outside):
    yield "a connection", lambda: socket.create_connection(("127.0.0.1", port), timeout=5)
    yield "a datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))
    yield "a name", lambda: socket.getaddrinfo("example.org", 80)
    yield "a local socket", lambda: socket.socket(socket.AF_UNIX).connect(outside + ".socket")
    yield "a file outside", lambda: open(outside)
    yield "writing outside", lambda: open(outside + ".new", "w")
    yield "a link to outside", lambda: (os.symlink(outside, "link"), open("link"))
    yield "a folder outside", lambda: os.listdir(os.path.dirname(outside))
    yield "another process", lambda: open("/proc/1/environ")
    yield "our user's files", lambda: os.listdir(os.path.expanduser("~root"))

def escaped(port, outside):
    found = []
    for name, attempt in attempts(port, outside):
        try:
            attempt()
        except OSError:
            continue
        found.append(name)
    return found
"""
NET = """
import json, pathlib
from monai.networks.nets import UNet
from scripts.attempts import escaped

class Net(UNet):
    def __init__(self, port, outside, mood="", **arguments):
        super().__init__(**arguments)
        found = escaped(port, outside)
        if found:
            raise RuntimeError(f"escaped by {found}")
        self.mood = mood

    def forward(self, image):
        if self.mood == "dies":
            import os
            os._exit(3)
        if self.mood == "raises":
            raise ValueError("SECRET^PATIENT")
        return super().forward(image)
"""
TINY = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [2, 4], "strides": [2]}


@pytest.fixture(scope="module")
def listening() -> Iterator[int]:
    """A server on loopback that nobody must reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def walls() -> None:
    fault = confinement.why_not()
    if fault is not None:
        pytest.skip(f"code cannot be isolated here: {fault}")


def bundle(folder: Path, network: toys.Config) -> Path:
    """A bundle with this network and the weights of a plain UNet."""
    written = toys.config({"_target_": "UNet", **TINY}, [TURN, SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX])
    made = toys.save(folder, written, toys.metadata(["background", "liver", "spleen"]), gain=3)
    written["network_def"] = network
    (made / "configs" / "inference.json").write_text(json.dumps(written))
    (made / "scripts").mkdir()
    (made / "scripts" / "__init__.py").write_text("")
    (made / "scripts" / "attempts.py").write_text(ATTEMPTS)
    (made / "scripts" / "net.py").write_text(NET)
    return made


def own(folder: Path, port: int, mood: str = "") -> Path:
    """A bundle whose network is a class of its own that tries to get out."""
    (folder.parent / OUTSIDE).write_text("a patient's name")
    outside = str((folder.parent / OUTSIDE).resolve())
    network = {"_target_": "scripts.net.Net", "port": port, "outside": outside, "mood": mood, **TINY}
    return bundle(folder, network)


def signed(folder: Path) -> AllowList:
    return AllowList(frozenset({trust.digest(folder)}))


def pipeline(folder: Path) -> Pipeline:
    return bundles.pipeline(bundles.read(folder, allowed=signed(folder)))


@pytest.mark.parametrize("wall", ["both", "namespace alone", "seccomp alone"])
def test_each_wall_keeps_a_process_from_the_network_and_from_files(wall: str, listening: int, tmp_path: Path) -> None:
    (tmp_path / OUTSIDE).write_text("a patient's name")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("weights")
    program = f"""
        import os, sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from pathlib import Path
        from pipelines import confinement
        if {wall!r} == "namespace alone":
            confinement._without_sockets = lambda: "off"
        if {wall!r} == "seccomp alone":
            confinement._without_network = lambda: "off"
        inside = Path({str(tmp_path / "inside")!r})
        confinement.confine(readable=[Path("/usr"), Path(sys.base_prefix)], writable=[inside])
        exec({ATTEMPTS!r})
        os.chdir(inside)
        assert Path("file").read_text() == "weights"
        Path("new").write_text("x")
        print(escaped({listening}, {str(tmp_path / OUTSIDE)!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_attempts_would_succeed_without_walls(listening: int, tmp_path: Path) -> None:
    (tmp_path / OUTSIDE).write_text("x")
    program = f"exec({ATTEMPTS!r}); print(escaped({listening}, {str(tmp_path / OUTSIDE)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    for attempt in ("a connection", "a datagram", "a file outside", "writing outside", "a link to outside"):
        assert attempt in done.stdout


@pytest.mark.long
def test_its_findings_are_those_of_the_same_network_without_code(listening: int, tmp_path: Path) -> None:
    folder = own(tmp_path / "own", listening)
    plain = bundles.pipeline(bundles.read(bundle(tmp_path / "plain", {"_target_": "UNet", **TINY})))
    said: list[str] = []
    ours = pipeline(folder).runner(toys.volume(), BundleSettings(), progress=lambda phase, fraction: said.append(phase))
    theirs = plain.runner(toys.volume(), BundleSettings())
    assert [segment.label for segment in ours.segments] == [segment.label for segment in theirs.segments] != []
    assert ours.labels is not None
    assert theirs.labels is not None
    assert np.array_equal(ours.labels, theirs.labels)
    assert ours.groups == theirs.groups
    assert ours.algorithm.weights_digest == trust.digest(folder)
    assert list(dict.fromkeys(said)) == ["pre", "network", "post"]


def test_unsigned_it_is_refused_and_signed_it_is_a_pipeline(listening: int, tmp_path: Path) -> None:
    folder, site = own(tmp_path / "own", listening), tmp_path / "models"
    with pytest.raises(Untrusted, match=f"not declarative.*sign for its digest {trust.digest(folder)}"):
        models.add(folder, site)
    installed = models.add(folder, site, allowed=signed(folder))
    assert models.names(site) == ()
    assert models.names(site, allowed=signed(folder)) == (installed.name,)
    assert models.verify(site)[0].fault is not None
    assert models.verify(site, allowed=signed(folder))[0].fault is None
    assert models.pipeline(site, installed.name, allowed=signed(folder)).spec.weights_digest == installed.digest


def test_where_no_wall_stands_it_is_refused_with_that_reason(
    listening: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own(tmp_path / "own", listening)
    monkeypatch.setattr(confinement, "why_not", lambda: "the kernel has no Landlock, so files cannot be taken away")
    with pytest.raises(Untrusted, match="cannot be isolated on this machine: the kernel has no Landlock"):
        bundles.read(folder, allowed=signed(folder))


@pytest.mark.long
def test_a_pickle_is_unpickled_inside_only(listening: int, tmp_path: Path) -> None:
    import torch

    folder = bundle(tmp_path / "pickled", {"_target_": "UNet", **TINY})
    path = folder / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({"model": state, "when": Path("x")}, path)
    with pytest.raises(Untrusted, match="is a pickle that calls"):
        bundles.read(folder)
    found = pipeline(folder).runner(toys.volume(), BundleSettings())
    assert found.segments


@pytest.mark.long
@pytest.mark.parametrize(
    ("mood", "said"), [("dies", "ended without an answer"), ("raises", r"failed: ValueError at net.py:\d+ forward")]
)
def test_what_goes_wrong_inside_costs_an_attempt_and_tells_no_text(
    mood: str, said: str, listening: int, tmp_path: Path
) -> None:
    folder = own(tmp_path / "own", listening, mood)
    with pytest.raises(IsolatedFailed, match=said) as failed:
        pipeline(folder).runner(toys.volume(), BundleSettings())
    assert failed.value.retryable
    assert "SECRET" not in str(failed.value)


@pytest.mark.long
def test_who_listens_to_progress_can_end_it(listening: int, tmp_path: Path) -> None:
    def cancel(phase: str, fraction: float) -> None:
        raise Cancelled("enough", remedy="None")

    with pytest.raises(Cancelled):
        pipeline(own(tmp_path / "own", listening)).runner(toys.volume(), BundleSettings(), progress=cancel)


def test_files_that_changed_after_the_signature_do_not_run(listening: int, tmp_path: Path) -> None:
    folder = own(tmp_path / "own", listening)
    found = pipeline(folder)
    (folder / "scripts" / "net.py").write_text(NET + "\n# more\n")
    with pytest.raises(Untrusted, match="not those that were signed for"):
        found.runner(toys.volume(), BundleSettings())


def test_the_catalogue_asks_the_signed_list(tmp_path: Path) -> None:
    catalog.look_in(tmp_path, allow_list=tmp_path / "allowed.txt", key=tmp_path / "key.pub")
    try:
        with pytest.raises(Untrusted, match="is not signed by the key"):
            catalog.allowed()
        assert "ct_lung" in catalog.names(), "a bad list stops no other pipeline"
    finally:
        catalog.look_in(None)
    assert catalog.allowed() == AllowList()
    assert isolated.PACKAGES == REPOSITORY
