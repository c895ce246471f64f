"""The first rulebook, sources and destinations of a new node: chest CT to `ct_lung`, and its results to the PACS."""

import ipaddress
import socket
from typing import Any

from dicom_sr.problem import Problem
from router.db.revisions import Kind

LOOPBACK = ["127.0.0.1", "::1"]
SENDER = "ISOCENTER_SEND"
"""Calling AE title of `isocenter send`."""

CHEST = {"matches": r"(?i)chest|thorax|thorac|lung|pulmon|\bthx\b"}


class UnknownHost(Problem):
    """A host name has no address."""


def starter(*, ae_title: str, host: str, port: int) -> dict[Kind, list[dict[str, Any]]]:
    """The bodies of the three first revisions, for a PACS with this AE title, host and port.

    Raises:  UnknownHost
    """
    return {
        Kind.DESTINATIONS: [{"name": "pacs", "kind": "dicom", "ae_title": ae_title, "host": host, "port": port}],
        Kind.SOURCES: [
            {"ae_title": ae_title, "addresses": addresses_of(host), "notes": "the PACS that results go to"},
            {"ae_title": SENDER, "addresses": LOOPBACK, "notes": "isocenter send, on this machine"},
        ],
        Kind.RULES: [chest_ct()],
    }


NO_SCAN = ["localizer", "derived reformat", "screen capture", "dose report", "result of an AI"]


def chest_ct() -> dict[str, Any]:
    """Chest CT volumes, whichever of the texts says that it is one, to `ct_lung`."""
    texts = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
    return {
        "name": "chest ct lungs",
        "scope": "series",
        "when": {
            "all": [
                {"Modality": "CT"},
                {"any": [{"body_part": {"contains": "chest"}}, *({keyword: CHEST} for keyword in texts)]},
                {"not": {"kind": NO_SCAN}},
                {"not": {"ImageType": {"contains": "LOCALIZER"}}},
                {"instances": {"at_least": 10}},
            ]
        },
        "pipelines": ["ct_lung"],
        "destinations": ["pacs"],
        "priority": "routine",
        "notes": "BodyPartExamined is often empty or wrong, so the descriptions are asked as well.",
    }


def addresses_of(host: str) -> list[str]:
    """IP addresses from which this host may call; all of this machine's loopback ones when it is this machine.

    Raises:  UnknownHost
    """
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise UnknownHost(
            f"{host} has no address that this machine can find ({error})", remedy="Give the PACS's IP address"
        ) from None
    if any(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found):
        return LOOPBACK
    return sorted(found)
