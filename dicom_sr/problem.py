"""The root of every error that Isocenter raises on purpose.

It lives in the lowest package and imports nothing, so that all three packages share one root; the tree of the
router's own errors is drawn at the head of `router/errors.py`.
"""


class Problem(Exception):  # noqa: N818  - the house's word, as the errors' remedies speak to people
    """Something a person or a retry can put right: what happened, to which thing, and what to do about it."""

    retryable = False
    """Whether the same attempt, made later and unchanged, may succeed; the error knows, the caller does not guess."""

    exit_code = 1
    """What a command exits with: 1 when it failed, 2 when it was asked wrongly."""

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.remedy = remedy
