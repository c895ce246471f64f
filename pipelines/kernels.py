"""How sharp a CT was reconstructed, as the maker's name of the convolution kernel tells (PS3.3 C.8.2.1).

A sharp kernel raises noise, and noise alone moves LAA-950 by about eight points; so densities of voxels are only
believed where the kernel is known to be soft. Names that are in no list count as unknown, never as soft.
"""

import re
from enum import StrEnum


class Sharpness(StrEnum):
    """What a kernel's name says."""

    SOFT = "soft"
    SHARP = "sharp"
    UNKNOWN = "unknown"


NUMBERED = re.compile(r"^[A-Z]{1,2}(\d{2})[A-Z]?$")
"""Siemens: letters for the family, two digits for the sharpness (B30f, Br40d, Qr36, I50f), a letter for the mode."""
TOSHIBA = re.compile(r"^FC(\d{2})")
LISTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "GE": (
        frozenset({"STANDARD", "STND", "SOFT"}),
        frozenset({"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "DETAIL", "HD LUNG", "HD BONE", "HD ULTRA", "HD EDGE"}),
    ),
    "PHILIPS": (
        frozenset({"A", "B", "SA", "SB", "FA", "FB"}),
        frozenset({"C", "D", "E", "L", "FC", "FD", "YA", "YB", "YC", "YD", "SC", "SD", "U"}),
    ),
}
"""Soft and sharp names of makers that name their kernels one by one."""
SIEMENS_SHARP_FROM = 50
SIEMENS_SOFT_TO = 44
TOSHIBA_SOFT_TO = 19
TOSHIBA_SHARP_FROM = 30
"""Between the two lie kernels for the head."""


def sharpness(manufacturer: str | None, kernel: str | None) -> Sharpness:
    """How sharp this maker's kernel of this name is."""
    maker = (manufacturer or "").upper()
    name = (kernel or "").split("\\")[0].strip().upper()
    if "SIEMENS" in maker:
        return _by_number(NUMBERED.match(name), SIEMENS_SOFT_TO, SIEMENS_SHARP_FROM)
    if "TOSHIBA" in maker or "CANON" in maker:
        if "LUNG" in name or "SHARP" in name or "BONE" in name:
            return Sharpness.SHARP
        return _by_number(TOSHIBA.match(name), TOSHIBA_SOFT_TO, TOSHIBA_SHARP_FROM)
    for key, (soft, sharp) in LISTS.items():
        if maker.startswith(key):
            return Sharpness.SOFT if name in soft else Sharpness.SHARP if name in sharp else Sharpness.UNKNOWN
    return Sharpness.UNKNOWN


def _by_number(match: re.Match[str] | None, soft_to: int, sharp_from: int) -> Sharpness:
    if match is None:
        return Sharpness.UNKNOWN
    number = int(match[1])
    return Sharpness.SOFT if number <= soft_to else Sharpness.SHARP if number >= sharp_from else Sharpness.UNKNOWN
