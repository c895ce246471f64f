"""Imports run downward only: router -> pipelines -> dicom_sr, and inside router as the design draws them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("router", "pipelines", "dicom_sr")

MAY_IMPORT: dict[str, set[str]] = {
    "router.domain": {"router.domain", "dicom_sr.problem"},
    "router.db": {"router.db", "router.domain", "dicom_sr.problem"},
    "router.store": {"router.domain", "router.errors", "dicom_sr.problem"},
    "router.destinations": {
        "router.destinations", "router.domain", "router.config", "router.errors", "router.requestor", "router.tls",
        "dicom_sr",
    },
    "router.query": {
        "router.query", "router.db", "router.domain", "router.store", "router.destinations", "router.config",
        "router.errors", "router.node", "router.requestor", "router.tls", "router.wake", "router.rulebook", "dicom_sr",
        "router.ingest.facts", "router.ingest.headers", "router.ingest.text",  # reading headers, which receives nothing
    },
    "router.tls": {"router.tls", "router.config", "dicom_sr.problem"},
    "router.ingest": {
        "router.ingest", "router.db", "router.domain", "router.store", "router.query", "router.destinations",
        "router.config", "router.errors", "router.node", "router.telemetry", "router.tls", "router.wake",
        "router.rulebook", "dicom_sr",
    },
    "router.web": {
        "router.web", "router.db", "router.domain", "router.store", "router.query", "router.ingest",
        "router.destinations", "router.config", "router.errors", "router.node", "router.wake", "router.rulebook",
        "router.why", "router.passwords", "router.revise", "router.trial", "router.views", "router.tls", "dicom_sr",
        "router.backtest", "router.checkup", "router.conditions", "pipelines.spec", "pipelines.catalog",
    },
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Our own modules that this file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def below(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_run_downward_only(path: Path) -> None:
    package = name_of(path).split(".")[0]
    lower = {
        "dicom_sr": {"dicom_sr"},
        "pipelines": {"pipelines", "dicom_sr"},
        "router": set(PACKAGES),
    }[package]
    wrong = {name for name in imported(path) if not below(name, lower)}
    assert not wrong, f"{name_of(path)} imports upward: {sorted(wrong)}"


@pytest.mark.parametrize("path", [p for p in modules() if name_of(p).startswith("router.")], ids=name_of)
def test_rooms_of_the_router_know_only_the_rooms_below_them(path: Path) -> None:
    room = next((room for room in MAY_IMPORT if below(name_of(path), {room})), None)
    if room is None:
        return
    wrong = {name for name in imported(path) if not below(name, MAY_IMPORT[room])}
    assert not wrong, f"{name_of(path)} reaches out of its room: {sorted(wrong)}"


@pytest.mark.parametrize(
    "module",
    [
        "router.ingest.listener",
        "router.work.assemble",
        "router.work.deliver",
        "router.work.build",
        "router.work.infer",
        "router.work.timetable",
        "router.web.server",
        "router.cli",
        "pipelines.catalog.ct_lung",
    ],
)
def test_no_role_imports_torch_or_monai(module: str) -> None:
    code = (
        f"import sys, {module}; from pipelines import catalog; [catalog.find(n) for n in catalog.names()]; "
        "heavy = {'torch', 'monai'} & set(sys.modules); sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
