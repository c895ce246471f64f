"""A process that gives up the network and the files: for code of bundles that an administrator has signed.

Three walls of the Linux kernel, put up by the process itself before it imports anything of others, and for good:
a user and network namespace of its own, in which there is no network; a seccomp filter by which no socket can be made
(nor a ring that could make one) and no other process be traced; and Landlock, by which only the named folders can be
opened. Files and one of the two walls to the network must stand, else `why_not` says what is missing and such code does
not run. Standard library only: threads that imports begin would be left outside the namespace.

Source:  user_namespaces(7), seccomp(2), landlock(7)
"""

import ctypes
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SIGKILL, EACCES = 9, 13

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
READ = 1 << 0 | 1 << 2 | 1 << 3
"""Execute, read a file, list a folder."""
ON_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Rights that a rule on a single file may name."""
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a kernel knows, by its version of Landlock; what is not granted is denied."""

SCOPED, SIGNALS_AND_SOCKETS = 6, 3
"""From this version on, processes outside can be kept from being sent signals; before, those of our user can be."""

MACHINES = {"x86_64": (0xC000003E, (41, 101, 310, 311)), "aarch64": (0xC00000B7, (198, 117, 270, 271))}
"""AUDIT_ARCH and the numbers of socket, ptrace, process_vm_readv and process_vm_writev, by machine."""
IO_URING = (425, 426, 427)
X32 = 0x40000000
"""Bit of a system call of the x32 ABI, by which the numbers above would be evaded."""
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000 | EACCES, 0x7FFF0000

_libc = ctypes.CDLL(None, use_errno=True)
_confined: list[bool] = []


class CannotConfineError(OSError):
    """The kernel, or who set it up, does not let this process wall itself in."""


def is_confined() -> bool:
    """Whether this process has walled itself in."""
    return bool(_confined)


def confine(*, readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Walls this process in for good: no network, no files but those below these paths; it ends with its parent.

    Raises:  CannotConfineError
    """
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failed("no_new_privs")
    faults = [fault for wall in (_without_network, _without_sockets) if (fault := wall()) is not None]
    if len(faults) == 2:
        raise CannotConfineError(f"the network cannot be taken away: {'; '.join(faults)}")
    _without_files([*readable], [*writable])
    _confined.append(True)


@cache
def why_not() -> str | None:
    """Why a process cannot be walled in here, None where it can; tried once, in a process of its own."""
    if is_confined():
        return None
    program = "import sys; sys.path.insert(0, sys.argv[1]); from pipelines import confinement; confinement.try_it()"
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent.parent)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return done.stderr.strip().rpartition("\n")[2][-300:] or f"the trial ended with exit code {done.returncode}"


def try_it() -> None:
    """Walls this process in and sees whether the walls stand; ends with the reason where they do not."""
    try:
        confine(readable=(), writable=())
    except CannotConfineError as fault:
        sys.exit(str(fault))
    for path in ("/etc/hostname", "/proc/1/status", __file__):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        sys.exit(f"{path} could still be opened")


def _failed(what: str) -> CannotConfineError:
    return CannotConfineError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _without_network() -> str | None:
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC):
        return str(_failed("no user and network namespace"))
    return None


def _without_sockets() -> str | None:
    if platform.machine() not in MACHINES:
        return f"no seccomp filter for {platform.machine()}"
    arch, calls = MACHINES[platform.machine()]
    forbidden = (*calls, *IO_URING)
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    steps.append((AT_LEAST, len(forbidden) + 1, 0, X32))
    steps += [(EQUAL, len(forbidden) - index, 0, call) for index, call in enumerate(forbidden)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program), 0, 0):
        return str(_failed("no seccomp filter"))
    return None


def _without_files(readable: list[Path], writable: list[Path]) -> None:
    version = _libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        raise CannotConfineError("the kernel has no Landlock, so files cannot be taken away")
    rights = RIGHTS[min(version, max(RIGHTS))]
    attributes = struct.pack("=QQQ", rights, 0, SIGNALS_AND_SOCKETS) if version >= SCOPED else struct.pack("=Q", rights)
    ruleset = _libc.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        raise _failed("no Landlock ruleset")
    for path in readable:
        _grant(ruleset, path, READ & rights)
    for path in writable:
        _grant(ruleset, path, rights)
    if _libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0)):
        raise _failed("no Landlock")
    os.close(ruleset)


def _grant(ruleset: int, path: Path, rights: int) -> None:
    """Lets what lies below a path be used; what is not there need not be."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & ON_FILES, place)
        if _libc.syscall(LANDLOCK_ADD_RULE, ruleset, ctypes.c_uint(1), rule, ctypes.c_uint(0)):
            raise _failed(f"no Landlock rule for {path}")
    finally:
        os.close(place)
