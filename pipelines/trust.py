"""What of a stranger's bundle may be touched, and who said that more may run.

Nothing here imports torch, and nothing here executes what it reads: a tree is walked, a checkpoint's pickle is read
as a list of names, a signature is verified. What the configs may say is `pipelines.declared`'s.
"""

import base64
import binascii
import hashlib
import os
import pickletools
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_sr.problem import Problem

MAX_FILES = 20_000
MAX_BYTES = 32 << 30
MAX_PICKLE_BYTES = 64 << 20
CHUNK = 1 << 20

TENSOR_NAMES = frozenset(
    {
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("torch", "Size"),
        ("torch", "Tensor"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
    }
)
"""Globals that a checkpoint of tensors names; `torch.load(weights_only=True)` knows a few more that none needs."""
DTYPES = frozenset(("float64", "float32", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"))
OLD_STYLE = 5
"""Pickles at the head of a checkpoint from before torch 1.6: magic, protocol, system, state dict, storage keys."""


class Untrusted(Problem):
    """A bundle, or a part of it, that will not be loaded."""


def survey(root: Path) -> tuple[Path, ...]:
    """Every file of a bundle's tree, sorted by its path; links, devices and over-large trees are refused.

    Raises:  Untrusted
    """
    found = tuple(sorted(_walk(root), key=lambda path: path.relative_to(root).as_posix()))
    total = sum(path.stat().st_size for path in found)
    if total > MAX_BYTES:
        raise Untrusted(f"the bundle holds {total >> 30} GiB", remedy=f"A bundle has at most {MAX_BYTES >> 30} GiB")
    return found


def digest(root: Path) -> str:
    """SHA-256 of a whole tree: every file's path, length and content, in the order of the paths.

    Raises:  Untrusted
    """
    total = hashlib.sha256()
    for path in survey(root):
        name = path.relative_to(root).as_posix().encode()
        total.update(f"{len(name)}:".encode() + name + f":{path.stat().st_size}:".encode())
        with path.open("rb") as content:
            while part := content.read(CHUNK):
                total.update(part)
    return total.hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    if root.is_symlink() or not root.is_dir():
        raise Untrusted(f"{root.name} is not a folder", remedy="Give a bundle's folder or its zip file")
    count, folders = 0, [root]
    while folders:
        with os.scandir(folders.pop()) as listing:
            entries = list(listing)
        for entry in entries:
            count += 1
            if count > MAX_FILES:
                raise Untrusted("the bundle has too many files", remedy=f"A bundle has at most {MAX_FILES} files")
            kind = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                folders.append(Path(entry.path))
            elif stat.S_ISREG(kind):
                yield Path(entry.path)
            else:
                raise Untrusted(
                    f"{entry.name!r} is a link or a device, not a file", remedy="A bundle holds files and folders only"
                )


def check_checkpoint(path: Path) -> None:
    """Refuses a checkpoint whose pickle names anything but tensors; read as opcodes, never unpickled.

    `torch.load(weights_only=True)` refuses the same later; here the reason is found without torch, when it is added.

    Raises:  Untrusted
    """
    with path.open("rb") as content:
        zipped = content.read(4) == b"PK\x03\x04"
        content.seek(0)
        pickles = _zipped_pickles(path) if zipped else [content]
        for stream in pickles:
            _check_pickle(stream, path.name)


def _zipped_pickles(path: Path) -> Iterator[BinaryIO]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
            code = [info.filename for info in archive.infolist() if "/code/" in f"/{info.filename}"]
            if code:
                raise Untrusted(
                    f"{path.name} is a TorchScript program, not a table of weights",
                    remedy="Save the state dict as safetensors, or have the bundle signed for isolation",
                )
            if not names:
                raise Untrusted(f"{path.name} is not a checkpoint", remedy="Save the state dict with torch.save")
            for info in names:
                if info.file_size > MAX_PICKLE_BYTES:
                    raise Untrusted(f"{path.name} holds an over-large pickle", remedy="Save a plain state dict")
                with archive.open(info) as stream:
                    yield stream  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as broken:
        raise Untrusted(f"{path.name} cannot be read: {broken}", remedy="Save the checkpoint again") from None


def _check_pickle(stream: BinaryIO, name: str) -> None:
    strange = sorted({f"{module}.{what}" for module, what in _globals(stream, name) if not _is_tensor(module, what)})
    if strange:
        raise Untrusted(
            f"{name} is a pickle that calls {', '.join(strange[:3])}",
            remedy="Save the state dict alone, best as safetensors",
        )


def _is_tensor(module: str, what: str) -> bool:
    return (module, what) in TENSOR_NAMES or (module == "torch" and (what.endswith("Storage") or what in DTYPES))


def _globals(stream: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """Module and name of everything that this file's pickles would import."""
    for turn in range(OLD_STYLE):
        texts: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    module, _, what = str(argument).partition(" ")
                    yield module, what
                elif opcode.name == "STACK_GLOBAL":
                    module, what = texts[-2:] if len(texts) > 1 else ("something", "computed")
                    yield module, what
                elif isinstance(argument, str):
                    texts.append(argument)
        except (ValueError, UnicodeDecodeError, IndexError, OverflowError):
            if turn == 0:
                raise Untrusted(f"{name} is not a checkpoint", remedy="Save the state dict with torch.save") from None
            return


# ---------------------------------------------------------------- what an administrator allows beyond


@dataclass(frozen=True, slots=True)
class AllowList:
    """Whole-tree digests of bundles that an administrator has signed for more than the declarative profile."""

    digests: frozenset[str] = frozenset()


def allowed(path: Path, *, public_key: Path) -> AllowList:
    """The signed allow-list: a digest a line (a remark may follow), its ed25519 signature beside it as `<name>.sig`.

    The key file holds the raw public key in base64. Whoever may write the key may allow anything, so it is refused
    while this process could write it.

    Raises:  Untrusted
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if public_key.is_file() and _ours_to_write(public_key):
        raise Untrusted(
            f"the public key {public_key} can be written by the user that runs the node",
            remedy="Give it and its folder to root, mode 0644, and run the node as another user",
        )
    try:
        text = path.read_bytes()
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.read_text().strip(), validate=True))
        key.verify(base64.b64decode(path.with_name(path.name + ".sig").read_text().strip(), validate=True), text)
    except (InvalidSignature, ValueError, binascii.Error, OSError):
        raise Untrusted(
            f"{path.name} is not signed by the key in {public_key}", remedy="Sign the allow-list again with ed25519"
        ) from None
    lines = (line.split(None, 1)[0].lower() for line in text.decode().splitlines() if line.strip())
    digests = frozenset(line for line in lines if not line.startswith("#"))
    wrong = [line for line in digests if len(line) != 64 or set(line) - set("0123456789abcdef")]
    if wrong:
        raise Untrusted(f"{path.name} holds {wrong[0][:20]!r}, not a SHA-256", remedy="Write one digest a line")
    return AllowList(digests)


def _ours_to_write(path: Path) -> bool:
    """Whether this process may change the file, or swap it for another, or grant itself the right to."""
    return any(
        place.stat().st_uid == os.geteuid() or os.access(place, os.W_OK, effective_ids=True)
        for place in (path, path.parent)
    )
