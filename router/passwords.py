"""Passwords: Argon2id (RFC 9106) with the library's parameters, and secrets made by the machine."""

import hashlib
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dicom_sr.problem import Problem
from router.domain.access import LONGEST_PASSWORD, SHORTEST_PASSWORD

_HASHER = PasswordHasher()
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each look at a password takes 64 MiB and a core; a crowd at the door waits."""
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))
"""What a name that nobody has is compared with, so that the answer takes as long."""


class WeakPassword(Problem):
    """A password is too short, too long or the user's own name."""

    exit_code = 2


def made() -> str:
    """A new password that nobody can guess, without characters that are easily confused."""
    letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


def hashed(password: str, *, name: str) -> str:
    """What the database keeps of a password.

    Raises:  WeakPassword
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD or password.casefold() == name.casefold():
        raise WeakPassword(
            f"the password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters and not be the name",
            remedy="Choose a longer one; a sentence is easy to remember",
        )
    with _AT_ONCE:
        return _HASHER.hash(password)


def fits(kept: str | None, password: str) -> bool:
    """Whether this is the password; it takes as long when there is none."""
    with _AT_ONCE:
        try:
            _HASHER.verify(kept or _NOBODY, password[: LONGEST_PASSWORD + 1])
        except (VerificationError, InvalidHashError):
            return False
    return kept is not None


def secret() -> str:
    """A new secret of 256 bits for a session or a token."""
    return secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """What the database keeps of a machine's secret: SHA-256 is enough where nobody could guess."""
    return hashlib.sha256(text.encode()).hexdigest()
