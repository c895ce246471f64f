"""Real servers for tests, on loopback and free ports, stopped by the pid that started them: Orthanc, and our node."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from router.compose import ROLES
from tests.conftest import until


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens there. Only TCP: pynetdicom leaves its socket open where an association fails."""
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class Orthanc:
    """An Orthanc with DICOMweb, empty at first; what it has taken is there again when it is started again."""

    folder: Path
    http: httpx.Client
    dicom_port: int
    http_port: int
    title: str = "ORTHANC"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        with (self.folder / "orthanc.log").open("ab") as log:
            process = self.process = subprocess.Popen(
                ["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        until(
            lambda: _up(self.http) or _ended(process, self.folder / "orthanc.log"),
            deadline_s=40,
            what="Orthanc's start",
        )

    def stop(self) -> None:
        """End it in an orderly way."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def instances(self) -> list[dict[str, Any]]:
        """Main tags of all that it holds."""
        found = self.http.get("/instances?expand").json()
        return [item["MainDicomTags"] | {"ID": item["ID"]} for item in found]

    def tags(self, orthanc_id: str) -> dict[str, Any]:
        """All tags of one instance by name."""
        return dict(self.http.get(f"/instances/{orthanc_id}/simplified-tags").json())

    def of_modality(self, modality: str) -> list[str]:
        """Orthanc ids of the instances of this modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        return list(self.http.post("/tools/find", json=query).json())

    def file(self, orthanc_id: str) -> bytes:
        """The DICOM file of one instance."""
        return self.http.get(f"/instances/{orthanc_id}/file").content


@contextmanager
def orthanc(folder: Path, modalities: Mapping[str, tuple[str, int]], **more: Any) -> Iterator[Orthanc]:
    """An Orthanc of its own; `modalities` are the nodes that it may send to: name -> (AE title, port).

    `more` goes into its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "Name": "ORTHANC",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "SaveJobs": False,
        "StableAge": 2,
        "DicomModalities": {name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()},
        "Plugins": [str(plugin) for plugin in Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb*")],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as client:
        running = Orthanc(folder=folder, http=client, dicom_port=dicom_port, http_port=http_port)
        try:
            running.start()
            yield running
        finally:
            running.stop()


def _up(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False


def _ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"the server ended with {process.returncode}: {log.read_text()[-2000:]}")
    return False


def isocenter(*arguments: str | Path, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one command of ours."""
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(f"isocenter {' '.join(map(str, arguments))} exited {done.returncode}:\n{done.stderr}")
    return done


@dataclass(slots=True, kw_only=True)
class RunningNode:
    """A whole node of ours: `isocenter serve` on a folder of its own."""

    folder: Path
    port: int
    title: str = "ISOCENTER"
    process: subprocess.Popen[bytes] | None = None
    log_path: Path | None = None

    @property
    def config(self) -> Path:
        return self.folder / "isocenter.yaml"

    @property
    def log_file(self) -> Path:
        """Where its log goes; beside its files where nothing else is said."""
        return self.log_path or self.folder / "serve.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def start(self) -> None:
        """Start it and wait until its door answers."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router.cli", "serve", "--config", str(self.config)],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        process = self.process
        until(
            lambda: listens(self.port) or _ended(process, self.log_file),
            deadline_s=180,
            what="the node's start",
        )

    def stop(self) -> int:
        """Ask it to drain, as an init system does; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    def kill(self) -> None:
        """SIGKILL to every process of it at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def processes(self) -> dict[str, list[int]]:
        """Ids of its living processes by what they are: supervisor, a role, pipeline, or another module's name.

        Raises:  AssertionError, when the node has ended by itself
        """
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the node ended by itself with {code}: {self.log[-2000:]}"
        return self.left()

    def left(self) -> dict[str, list[int]]:
        """The same of a node that may have been killed."""
        found: dict[str, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                _, _, numbers = (entry / "stat").read_text().rpartition(")")
                named = (entry / "comm").read_text().strip()
            except OSError:  # it ended while we looked
                continue
            state, session = numbers.split()[0], int(numbers.split()[3])
            if self.process is None or session != self.process.pid or state == "Z":
                continue
            leader = int(entry.name) == session
            found.setdefault("supervisor" if leader else _role(words, named), []).append(int(entry.name))
        return found

    def kill_one(self, what: str, *, but: Collection[int] = ()) -> list[int]:
        """SIGKILL to this process as soon as it lives; what was killed. `but` names those that are spared."""
        found = until(
            lambda: [pid for pid in self.processes().get(what, ()) if pid not in but],
            deadline_s=180,
            what=f"a living {what}",
        )
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def ask(self, *command: str) -> Any:
        """The JSON answer of one listing."""
        return json.loads(isocenter(*command, "--config", self.config, "--json").stdout)

    def send(self, *paths: Path) -> None:
        """Send files to it by C-STORE."""
        isocenter("send", *paths, "--to", f"{self.title}@127.0.0.1:{self.port}")

    def settled(self, *, deadline_s: float = 90.0) -> list[dict[str, Any]]:
        """All jobs, once every study is complete or held and no job is queued or running any more."""

        def quiet() -> list[dict[str, Any]] | None:
            studies = self.ask("studies", "list")
            jobs: list[dict[str, Any]] = self.ask("jobs", "list")
            busy = [s for s in studies if s["state"] == "receiving"] + [
                j for j in jobs if j["state"] in ("queued", "running", "waiting")
            ]
            return jobs if studies and jobs and not busy else None

        found = until(quiet, deadline_s=deadline_s, what=f"a settled node ({self.folder}/serve.log)")
        assert found is not None
        return found


def _role(words: list[str], named: str) -> str:
    """What a process of the node is: by its command line, or by its name where it is a copy of the supervisor."""
    if "--role" in words:
        return words[words.index("--role") + 1]
    role = next((role for role in ROLES if named == f"isocenter-{role}"[:15]), None)
    if role is not None:
        return role
    module = words[words.index("-m") + 1] if "-m" in words else named
    return "pipeline" if module.endswith("work.inside") else module


@contextmanager
def node(folder: Path, pacs: str, *, quiet_period_s: float = 1.0, **settings: Any) -> Iterator[RunningNode]:
    """A node that sends its results to `pacs`; `settings` are merged into its isocenter.yaml."""
    running = RunningNode(folder=folder, port=free_port())
    isocenter("init", folder, "--pacs", pacs, "--port", str(running.port), "--quiet-period-s", str(quiet_period_s))
    document = yaml.safe_load(running.config.read_text())
    document["listener"]["host"] = "127.0.0.1"
    document["web"] = {"port": 0}
    document["delivery"] = {"retry_first_s": 0.5, "retry_cap_s": 2}
    for section, values in settings.items():
        document[section] = {**document.get(section, {}), **values}
    running.config.write_text(yaml.safe_dump(document))
    try:
        running.start()
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()
