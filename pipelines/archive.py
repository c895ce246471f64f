"""A bundle's zip file, unpacked so that nothing in it can leave its folder or fill the disk.

Nothing is extracted by the zip library: every name is judged, every byte counted while it is written.
"""

import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from pipelines.trust import CHUNK, MAX_BYTES, MAX_FILES, Untrusted

MAX_RATIO = 200
"""Bytes out per byte in, for a whole archive; weights hardly shrink, and a config is small."""
SMALL = 1 << 20
"""An archive that unpacks to less is no bomb whatever its ratio."""
REMEDY = "Pack the bundle's folder again, with plain files only"


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a zip file into an empty folder and gives the bundle's folder in it: the one that has `configs`.

    Raises:  Untrusted
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            _check_sizes(entries, archive)
            for entry, place in _places(entries, archive):
                _write(packed, entry, into / place)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zipfile.LargeZipFile) as broken:
        raise Untrusted(f"{archive.name} is not a sound zip file: {broken}", remedy=REMEDY) from None
    return _bundle(into, archive)


def _check_sizes(entries: list[zipfile.ZipInfo], archive: Path) -> None:
    total, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
    if len(entries) > MAX_FILES:
        raise Untrusted(f"{archive.name} has {len(entries)} entries", remedy=f"A bundle has at most {MAX_FILES} files")
    if total > MAX_BYTES or (total > SMALL and total > MAX_RATIO * packed):
        raise Untrusted(
            f"{archive.name} is a zip bomb: {packed} bytes would unpack to {total}",
            remedy=f"A bundle unpacks to at most {MAX_RATIO} times its size and {MAX_BYTES >> 30} GiB",
        )


def _places(entries: list[zipfile.ZipInfo], archive: Path) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Each file with its place below the folder; folders are made as files need them."""
    places: dict[str, tuple[zipfile.ZipInfo, PurePosixPath]] = {}
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        parts = name.rstrip("/").split("/")
        if "\\" in entry.orig_filename or ":" in name or "\0" in entry.orig_filename or not name.isprintable():
            raise Untrusted(f"{archive.name} holds an entry with an unfit name, {name!r}", remedy=REMEDY)
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise Untrusted(f"{archive.name} holds {name!r}, which leads out of the bundle", remedy=REMEDY)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Untrusted(f"{archive.name} holds {name!r}, which is a link or a device", remedy=REMEDY)
        if entry.flag_bits & 0x1:
            raise Untrusted(f"{archive.name} holds {name!r}, which is encrypted", remedy=REMEDY)
        if entry.is_dir():
            continue
        if name.casefold() in places:
            raise Untrusted(f"{archive.name} holds {name!r} twice", remedy=REMEDY)
        places[name.casefold()] = entry, PurePosixPath(*parts)
    return list(places.values())


def _write(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(entry) as source, target.open("xb") as sink:
        if _copy(source, sink, entry.file_size) != entry.file_size:
            raise Untrusted(f"{entry.filename!r} does not unpack to the size it states", remedy=REMEDY)


def _copy(source: IO[bytes], sink: IO[bytes], stated: int) -> int:
    """Copies up to one byte more than stated; the count tells whether the entry lied."""
    written = 0
    while part := source.read(min(CHUNK, stated + 1 - written)):
        sink.write(part)
        written += len(part)
    return written


def _bundle(folder: Path, archive: Path) -> Path:
    found = sorted({path.parent.parent for path in folder.rglob("configs/metadata.json")}, key=lambda p: len(p.parts))
    if len(found) != 1:
        raise Untrusted(
            f"{archive.name} holds {len(found) or 'no'} bundle{'s' * (len(found) > 1)}",
            remedy="Pack one folder that has configs/metadata.json in it",
        )
    return found[0]
