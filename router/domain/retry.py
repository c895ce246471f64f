"""How long to wait before the next attempt: a pure function, chance among its arguments."""


def wait_s(attempt: int, *, first_s: float, cap_s: float, chance: float) -> float:
    """Seconds to wait after attempt number `attempt` (1, 2 ...) has failed.

    Doubles with each attempt up to `cap_s`; `chance` in [0, 1) spreads it over the upper half, so that many who failed
    together do not come back together.
    """
    whole = cap_s if attempt > 60 else min(cap_s, first_s * 2.0 ** (attempt - 1))
    return whole * (1 + chance) / 2
