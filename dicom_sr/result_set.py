"""A result set: what one destination profile gets of one run, built in order and let through the gate as a whole."""

from collections.abc import Iterable
from dataclasses import replace

from dicom_sr import check, kinds
from dicom_sr.kinds import Built, Order
from dicom_sr.refusals import NoGeometry


def build(wanted: Iterable[str], order: Order) -> tuple[Built, ...]:
    """The objects of these kinds, each able to reference those before it; a kind with nothing to say is left out.

    Raises:  GateClosed, UnknownKind, NoGeometry
    """
    placeable(order)
    built: tuple[Built, ...] = ()
    for kind in wanted:
        built += kinds.built(kind, replace(order, companions=built))
    check.check(built, order)
    return built


def placeable(order: Order) -> None:
    """Refuse findings that lie somewhere on an image that does not lie in the patient.

    Raises:  NoGeometry
    """
    findings = order.findings
    groups = any(group.box or group.region for group in findings.groups)
    somewhere = findings.segments or findings.maps or groups
    if somewhere and not order.source.placed:
        raise NoGeometry(
            f"{findings.algorithm.name} delineated something on a projection image, which lies nowhere in the patient",
            remedy="On radiographs only statements and numbers about the whole image can be reported",
        )
