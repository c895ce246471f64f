"""A result set: what one destination profile gets of one run, built in order and let through the gate as a whole."""

from collections.abc import Iterable
from dataclasses import replace

from dicom_sr import check, kinds
from dicom_sr.kinds import Built, Order


def build(wanted: Iterable[str], order: Order) -> tuple[Built, ...]:
    """The objects of these kinds, each able to reference those before it; a kind with nothing to say is left out.

    Raises:  GateClosed, UnknownKind
    """
    built: tuple[Built, ...] = ()
    for kind in wanted:
        built += kinds.built(kind, replace(order, companions=built))
    check.check(built, order)
    return built
