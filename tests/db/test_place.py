"""SQLite lies on a disk of this machine, or is refused before anything is written."""

from pathlib import Path

import pytest

from router.db import place
from router.db.place import NetworkDisk, kind_at, refuse_network
from tests.servers import isocenter

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:45 / /srv/with\\040blank rw shared:9 - nfs4 nas:/export rw
31 30 8:2 / /srv/with\\040blank/local rw shared:9 - xfs /dev/sdb1 rw
32 22 0:46 / /mnt/win rw - cifs //server/share rw
33 22 8:3 / /over rw - ext4 /dev/sdc1 rw
34 22 0:47 / /over rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/var/lib/a.db", "ext4"),
        ("/srv/with blank/a.db", "nfs4"),
        ("/srv/with blank/local/a.db", "xfs"),
        ("/srv/with blanks/a.db", "ext4"),
        ("/mnt/win/deep/a.db", "cifs"),
        ("/over/a.db", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_last_mount_holds_a_file(file: str, kind: str) -> None:
    assert kind_at(Path(file), MOUNTS) == kind


def test_sqlite_on_a_network_disk_is_refused_and_postgresql_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:45 / {tmp_path} rw - nfs4 nas:/export rw\n")
    monkeypatch.setattr(place, "MOUNTS", mounts)
    with pytest.raises(NetworkDisk, match=r"nfs4.*PostgreSQL"):
        refuse_network(f"sqlite:///{tmp_path}/isocenter.db")
    refuse_network("postgresql+psycopg://user@host/name")
    monkeypatch.setattr(place, "MOUNTS", tmp_path / "not linux")
    refuse_network(f"sqlite:///{tmp_path}/isocenter.db")


def test_this_machines_own_disk_is_taken(tmp_path: Path) -> None:
    isocenter("init", tmp_path / "node", "--pacs", "PACS@127.0.0.1:104")
