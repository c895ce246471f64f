"""Roles wake each other wherever the node lies, and a role that crashes is started again."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from router.wake import Bell, Ear
from tests.conftest import until
from tests.servers import node


def test_a_bell_is_heard_however_deep_the_folder_lies(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with Ear(deep, "infer") as ear, Ear(deep, "deliver") as other:
        Bell(deep).ring("infer")
        assert ear.wait(5)
        assert not ear.wait(0)
        assert not other.wait(0)


def test_a_dead_ear_is_swept_and_a_bell_without_ears_rings_for_nobody(tmp_path: Path) -> None:
    Bell(tmp_path / "nowhere").ring("infer")
    with Ear(tmp_path, "infer") as ear:
        left = ear.address.with_name("infer.1.dead")
        os.link(ear.address, left)
    Bell(tmp_path).ring("infer")
    assert not left.exists()


@pytest.mark.long
def test_a_role_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with node(tmp_path / "node", "PACS@127.0.0.1:1") as ours:
        assert ours.process is not None
        supervisor = psutil.Process(ours.process.pid)

        def role(name: str) -> psutil.Process | None:
            try:
                alive = [p for p in supervisor.children() if p.status() != psutil.STATUS_ZOMBIE]
                return next((p for p in alive if p.name() == f"isocenter-{name}"[:15]), None)
            except psutil.NoSuchProcess:  # one ended while we looked
                return None

        first = until(lambda: role("decide"), what="the role decide")
        assert first is not None
        first.send_signal(signal.SIGKILL)
        until(lambda: (again := role("decide")) and again.pid != first.pid, what="another decide")
        assert "role.crashed" in ours.log
        assert ours.stop() == 0
