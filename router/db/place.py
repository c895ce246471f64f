"""Where a SQLite file may lie: on a disk of this machine, since its locks and shared memory mean nothing elsewhere.

Source:  sqlite.org, "Write-Ahead Logging" (all processes on one host) and "How To Corrupt An SQLite Database File", 2.1
"""

import os
from pathlib import Path

from sqlalchemy import make_url

from dicom_sr.problem import Problem

MOUNTS = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "pvfs2",
        "smb3", "smbfs",
    }
)  # fmt: skip
"""File systems that other machines write, too, as Linux names them."""


class NetworkDisk(Problem):
    """The database would lie on a network file system."""

    exit_code = 2


class NotOurAccount(Problem):
    """The database belongs to another account of this machine, which did not give it to ours."""

    exit_code = 2


def refuse_foreign(url: str) -> None:
    """Refuse a SQLite database that this account may not read and write.

    Raises:  NotOurAccount
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return
    file = Path(address.database or "")
    try:
        foreign = file.exists() and not os.access(file, os.R_OK | os.W_OK)
    except PermissionError:
        foreign = True
    if foreign:
        raise NotOurAccount(
            f"this account may not read and write the database {file}",
            remedy="Give the command as the node's account, such as `sudo -u isocenter isocenter ...`",
        )


def refuse_network(url: str) -> None:
    """Refuse a SQLite database whose file lies on a network file system.

    Raises:  NetworkDisk
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite" or not MOUNTS.exists():
        return
    file = Path(address.database or "").resolve()
    kind = kind_at(file, MOUNTS.read_text())
    if kind in NETWORK:
        raise NetworkDisk(
            f"the database {file} lies on a network file system ({kind}), where SQLite loses what was committed",
            remedy="Move it to a disk of this machine, or use PostgreSQL: database.url postgresql+psycopg://...",
        )


def kind_at(file: Path, mounts: str) -> str:
    """The kind of the file system that holds this path, by the lines of proc(5)'s mountinfo; empty when it has none.

    Of several at one place the last one hides the others.
    """
    best: tuple[int, str] = (0, "")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        at = Path(before.split()[4].encode().decode("unicode_escape"))  # blanks stand there as \040
        if file.is_relative_to(at) and len(at.parts) >= best[0]:
            best = (len(at.parts), after.split()[0])
    return best[1]
